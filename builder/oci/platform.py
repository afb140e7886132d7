"""Platforms: os/architecture[/variant], as image indexes and `FROM --platform` name them."""

from __future__ import annotations

import os
from dataclasses import dataclass

from builder.errors import UsageError

_ARCHITECTURES = {
    "x86_64": "amd64",
    "x86-64": "amd64",
    "aarch64": "arm64",
    "i386": "386",
    "i486": "386",
    "i686": "386",
    "armhf": "arm",
    "armel": "arm",
}
_SYSTEMS = {"macos": "darwin"}


@dataclass(frozen=True, slots=True)
class Platform:
    """A normalised platform: lower case, GOARCH names, no variant that only restates the default."""

    os: str
    architecture: str
    variant: str = ""
    os_version: str = ""

    @classmethod
    def parse(cls, text: str) -> Platform:
        """`os/arch[/variant]`, `arch` or `os`, normalised as containerd/platforms does.

        Raises UsageError for anything else.
        """
        parts = text.strip().lower().split("/")
        if not all(parts) or len(parts) > 3 or not text.strip():
            raise UsageError(f"{text!r} is not a platform", "write it as os/architecture[/variant], e.g. linux/arm64")
        if len(parts) == 1:
            word = parts[0]
            if word in ("linux", "windows", "darwin", "freebsd", "macos"):
                return cls(_SYSTEMS.get(word, word), cls.host().architecture)
            return cls("linux", *_normalise(word, (word == "armhf" and "v7") or (word == "armel" and "v6") or ""))
        variant = parts[2] if len(parts) == 3 else ""
        if not variant and parts[1] in ("armhf", "armel"):
            variant = {"armhf": "v7", "armel": "v6"}[parts[1]]
        return cls(_SYSTEMS.get(parts[0], parts[0]), *_normalise(parts[1], variant))

    @classmethod
    def host(cls) -> Platform:
        """The platform that this process runs on."""
        machine = os.uname().machine.lower()
        if machine.startswith("armv"):
            return cls("linux", "arm", "v" + machine[4:5])
        return cls("linux", *_normalise(machine, ""))

    def matches(self, wanted: Platform) -> bool:
        """Whether an image of this platform serves `wanted`: same system, architecture and variant."""
        if (self.os, self.architecture) != (wanted.os, wanted.architecture):
            return False
        return _default_variant(self) == _default_variant(wanted)

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))


def _normalise(architecture: str, variant: str) -> tuple[str, str]:
    architecture = _ARCHITECTURES.get(architecture, architecture)
    if variant and not variant.startswith("v") and variant.isdigit():
        variant = "v" + variant
    if (architecture, variant) in (("arm64", "v8"), ("amd64", "v1")):
        variant = ""
    if architecture == "arm" and not variant:
        variant = "v7"
    return architecture, variant


def _default_variant(platform: Platform) -> str:
    return platform.variant or {"arm": "v7", "arm64": "v8", "amd64": "v1"}.get(platform.architecture, "")
