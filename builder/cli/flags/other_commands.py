"""Flags that `limpet warm` and `limpet login` have for themselves."""

from __future__ import annotations

from builder.cli.flag import Flag
from builder.cli.flags.groups import CACHE, INPUT, REGISTRIES, WARM

FLAGS: tuple[Flag, ...] = (
    # --- limpet warm, /kaniko/warmer ---
    Flag(
        "image",
        "list",
        "Image to store.",
        INPUT,
        WARM,
        short="i",
        metavar="REFERENCE",
        many="images",
    ),
    Flag(
        "dockerfile",
        "string",
        "Dockerfile: the images of FROM, COPY --from and mounts are stored. A path or an http(s) URL.",
        INPUT,
        WARM,
        short="d",
        metavar="PATH",
    ),
    Flag(
        "build-arg",
        "list",
        "Value for an ARG that FROM uses. NAME alone takes it from the environment.",
        INPUT,
        WARM,
        metavar="NAME[=VALUE]",
        many="build-args",
    ),
    Flag(
        "cache-dir",
        "string",
        "Local store of base images and unpacked layers.",
        CACHE,
        WARM,
        default="/cache",
        short="c",
        metavar="DIRECTORY",
    ),
    Flag("force", "bool", "Store again what is there already.", CACHE, WARM, default="false", short="f"),
    Flag(
        "customPlatform",
        "string",
        "Platform to store. Default: this machine's.",
        INPUT,
        WARM,
        metavar="OS/ARCH[/VARIANT]",
        aliases=("custom-platform", "platform"),
    ),
    # --- limpet login ---
    Flag("username", "string", "Name to log in with.", REGISTRIES, ("login",), short="u", metavar="NAME"),
    Flag(
        "password",
        "string",
        "Password; other processes can see it here, so prefer --password-stdin.",
        REGISTRIES,
        ("login",),
        short="p",
        metavar="PASSWORD",
    ),
    Flag("password-stdin", "bool", "Read the password from standard input.", REGISTRIES, ("login",), default="false"),
)
