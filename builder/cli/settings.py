"""Flags and environment become settings; every contradiction is refused here, naming the flag to use instead."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, cast

from builder.cli.arguments import Arguments
from builder.cli.grammar import is_true
from builder.cli.registry_access import RegistryAccess, registry_access
from builder.cli.secret_spec import agent_sockets, read_directory, read_secrets, secret_files
from builder.errors import UsageError
from builder.oci.platform import Platform
from builder.outputs import RESULTS, ResultFiles
from builder.steps.ignored_paths import ignored_paths
from context_sources.git_address import is_git_address

LogFormat = Literal["live", "plain", "text", "color", "json"]


@dataclass(frozen=True, slots=True)
class LogSettings:
    """How the build speaks. `level` is one of builder.events.Level, or "fatal" for errors that end Limpet only."""

    level: str = "info"
    format: LogFormat = "plain"
    clock: bool = False  # time of day instead of seconds since the start


@dataclass(frozen=True, slots=True)
class SourceSettings:
    """Where the build context and the Dockerfile are."""

    context: str = "/workspace/"
    sub_path: str = ""
    dockerfile: str = "Dockerfile"
    git: Mapping[str, str] = field(default_factory=dict)
    named_contexts: Mapping[str, str] = field(default_factory=dict)
    max_size: int = 0  # bytes; 0: the source's own limit
    allow_http: bool = False
    header_file: str = ""


@dataclass(frozen=True, slots=True)
class BuildSettings:
    """What is built and how. `platforms` is empty for this machine's; the first of `targets` is pushed."""

    build_args: Mapping[str, str] = field(default_factory=dict, repr=False)
    targets: tuple[str, ...] = ()
    platforms: tuple[Platform, ...] = ()
    secrets: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    secret_files: tuple[Path, ...] = ()  # where they were read
    ssh: Mapping[str, Path] = field(default_factory=dict)
    allow: frozenset[str] = frozenset()
    isolation: str = "auto"
    work_dir: Path | None = None  # None: a new directory below TMPDIR
    in_place_anywhere: bool = False  # --force
    ignore_paths: tuple[str, ...] = ()
    unknown_owners_are_root: bool = False
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class ImageSettings:
    """What the image is like. `format` "" inherits the base image's; `compression_level` -1 is the default."""

    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    auto_labels: bool = False
    format: Literal["", "docker", "oci"] = ""
    compression: Literal["gzip", "zstd"] = "gzip"
    compression_level: int = -1
    single_snapshot: bool = False
    reproducible: bool = False


@dataclass(frozen=True, slots=True)
class OutputSettings:
    """Where the image goes. `destinations` are as written, `--tags` included. `print_plan`: KANIKO_PRINT_PLAN."""

    destinations: tuple[str, ...] = ()
    push: bool = True
    check_push_permission: bool = True
    ignore_immutable_tags: bool = False
    tar_path: Path | None = None
    oci_layout_path: Path | None = None
    files: ResultFiles = field(default_factory=ResultFiles)
    progress_file: Path | None = None
    trace_file: Path | None = None
    print_plan: bool = False
    reports_directory: Path | None = None


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """What is reused. `ttl` in seconds, `directory_size` in bytes (0: no limit).

    The directory is made when it was asked for; the default one is used where it exists.
    """

    enabled: bool = False
    repository: str = ""
    directory: Path = Path("/cache")
    make_directory: bool = False
    directory_size: int = 0
    ttl: float = 336 * 3600.0
    run_layers: bool = True
    copy_layers: bool = False
    write: bool = True
    mounts: Literal["local", "registry"] = "local"


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that `limpet build` was told."""

    source: SourceSettings = SourceSettings()
    build: BuildSettings = BuildSettings()
    image: ImageSettings = ImageSettings()
    output: OutputSettings = OutputSettings()
    registry: RegistryAccess = field(default_factory=RegistryAccess)
    cache: CacheSettings = CacheSettings()


def settings_of(arguments: Arguments, env: Mapping[str, str]) -> Settings:
    """The settings of `limpet build` and `limpet plan`. Reads secrets. Raises UsageError."""
    output = output_settings(arguments, env)
    image = _image_settings(arguments)
    if output.tar_path and image.format == "oci":
        raise UsageError(
            "--tar-path writes docker's archive, which cannot hold --image-format=oci",
            "use --oci-layout-path, or leave out --image-format",
        )
    if output.tar_path and image.compression == "zstd":
        raise UsageError(
            "--tar-path writes docker's archive, which cannot hold --compression=zstd",
            "use --oci-layout-path, or leave out --compression",
        )
    build = _build_settings(arguments, env)
    if len(build.platforms) > 1 and output.tar_path:
        raise UsageError("--tar-path holds one platform only", "use --oci-layout-path, or name one --platform")
    return Settings(
        source=_source_settings(arguments),
        build=build,
        image=image,
        output=output,
        registry=registry_access(arguments, env),
        cache=_cache_settings(arguments, output),
    )


def log_settings(arguments: Arguments, *, terminal: bool) -> LogSettings:
    """How to speak; `terminal` says whether the log goes to one."""
    level = {"warn": "warning", "panic": "fatal"}.get(arguments.text("verbosity"), arguments.text("verbosity"))
    chosen = arguments.text("log-format") or ("live" if terminal else "plain")
    return LogSettings(level, cast(LogFormat, chosen), arguments.is_set("log-timestamp"))


def output_settings(arguments: Arguments, env: Mapping[str, str]) -> OutputSettings:
    """Where the image goes; also for `limpet push`, which has no --no-push."""
    values = arguments.values
    no_push = bool(values.get("no-push", False)) or not values.get("push", True)
    dry_run = bool(values.get("dryrun", False)) or arguments.command == "plan"
    destinations = _destinations(arguments)
    if not destinations and not no_push and not dry_run:
        raise UsageError(
            "you must provide --destination, or use --no-push",
            "for example --destination=registry.example.com/app:1.0",
        )
    for name in ("image-name-with-digest-file", "image-name-tag-with-digest-file"):
        if values.get(name) and not destinations:
            raise UsageError(f"--{name} needs a --destination", "use --digest-file for an image without a name")
    files = ResultFiles(
        digest_file=str(values.get("digest-file", "")),
        name_with_digest_file=str(values.get("image-name-with-digest-file", "")),
        name_tag_with_digest_file=str(values.get("image-name-tag-with-digest-file", "")),
        results_directory=_path(values.get("results-dir", "")),
        results=named_results(arguments),
        metadata_file=_path(values.get("metadata-file", "")),
        builder_output=_path(env.get("BUILDER_OUTPUT", "")),
    )
    return OutputSettings(
        destinations=destinations,
        push=not no_push,
        check_push_permission=not values.get("skip-push-permission-check", False),
        ignore_immutable_tags=bool(values.get("push-ignore-immutable-tag-errors", False)),
        tar_path=_path(values.get("tar-path", "")),
        oci_layout_path=_path(values.get("oci-layout-path", "")),
        files=files,
        progress_file=_path(values.get("progress-file", "")),
        trace_file=_path(values.get("trace", "")),
        print_plan=is_true(env.get("KANIKO_PRINT_PLAN", "")),
        reports_directory=_path(values.get("reports-dir", "")),
    )


def build_args(specs: tuple[str, ...], env: Mapping[str, str]) -> dict[str, str]:
    """`NAME=VALUE`, or `NAME` with the value of the environment; unset there, it is as if not given (as in docker).

    SOURCE_DATE_EPOCH of the environment counts as a build argument, as buildx has it.
    """
    found: dict[str, str] = {}
    if env.get("SOURCE_DATE_EPOCH"):
        found["SOURCE_DATE_EPOCH"] = env["SOURCE_DATE_EPOCH"]
    for spec in specs:
        name, equals, value = spec.partition("=")
        if not name:
            raise UsageError("--build-arg: no name", "write --build-arg NAME=VALUE")
        if equals:
            found[name] = value
        elif name in env:
            found[name] = env[name]
    return found


def _source_settings(arguments: Arguments) -> SourceSettings:
    named: dict[str, str] = {}
    for spec in arguments.items("build-context"):
        name, equals, address = spec.partition("=")
        if not (name and equals and address):
            raise UsageError(f"--build-context: {spec!r} is not NAME=ADDRESS", "for example --build-context lib=../lib")
        named[name] = address
    return SourceSettings(
        context=_context(_bucket(arguments) or arguments.text("context"), arguments.text("context-base")),
        sub_path=arguments.text("context-sub-path"),
        dockerfile=arguments.text("dockerfile"),
        git=arguments.mapping("git"),
        named_contexts=named,
        max_size=arguments.number("context-max-size"),
        allow_http=arguments.is_set("context-allow-http"),
        header_file=arguments.text("context-header-file"),
    )


def _build_settings(arguments: Arguments, env: Mapping[str, str]) -> BuildSettings:
    allow = frozenset(arguments.items("allow"))
    if unknown := allow - {"network.host", "security.insecure"}:
        raise UsageError(
            f"--allow: unknown entitlement {min(unknown)}", "the entitlements are network.host and security.insecure"
        )
    ignored_paths(arguments.items("ignore-path"))  # complains of a pattern that is none
    if arguments.is_set("materialize"):
        raise UsageError(
            "--materialize: an image is never unpacked over this container's own files",
            "write it with --oci-layout-path or --tar-path, and unpack it where it is wanted",
        )
    return BuildSettings(
        build_args=build_args(arguments.items("build-arg"), env),
        targets=arguments.items("target"),
        platforms=_platforms(arguments),
        secrets={
            **read_directory(arguments.text("secrets-dir")),
            **read_secrets(arguments.items("secret"), env),
        },
        secret_files=secret_files(arguments.items("secret"), arguments.text("secrets-dir")),
        ssh=agent_sockets(arguments.items("ssh"), env),
        allow=allow,
        isolation=arguments.text("isolation"),
        work_dir=_path(arguments.text("work-dir") or arguments.text("kaniko-dir")),
        in_place_anywhere=arguments.is_set("force"),
        ignore_paths=arguments.items("ignore-path"),
        unknown_owners_are_root=arguments.text("unknown-owners") == "root",
        dry_run=bool(arguments.values.get("dryrun", False)),
    )


def _bucket(arguments: Arguments) -> str:
    """The address that `--bucket` means: of kaniko's context.tar.gz in it, unless it is an address itself."""
    bucket = arguments.text("bucket")
    if bucket and "context" in arguments.given and arguments.text("context"):
        raise UsageError("--bucket and --context name two contexts", f"leave out --bucket={bucket}")
    return bucket if not bucket or "://" in bucket else f"gs://{bucket}"


def _context(text: str, base: str) -> str:
    """Paths are below `base`, if there is one; addresses are as they are."""
    if not base or "://" in text or is_git_address(text):
        return text
    return f"{base}/{text}"


def named_results(arguments: Arguments) -> dict[str, Path]:
    """`--result NAME=FILE`; an empty file is unset. Raises UsageError for a name that is no result."""
    named = cast("dict[str, str]", arguments.values.get("result", {}))
    if unknown := named.keys() - set(RESULTS):
        raise UsageError(f"--result: unknown result {min(unknown)}", f"the results are {', '.join(RESULTS)}")
    return {name: Path(path) for name, path in named.items() if path}


def _image_settings(arguments: Arguments) -> ImageSettings:
    compression = cast("Literal['gzip', 'zstd']", arguments.text("compression") or "gzip")
    image_format = cast("Literal['', 'docker', 'oci']", arguments.text("image-format"))
    if image_format == "docker" and compression == "zstd":
        raise UsageError(
            "--image-format=docker has no media type for --compression=zstd",
            "use --image-format=oci, or leave out --compression",
        )
    level = arguments.number("compression-level")
    highest = {"gzip": 9, "zstd": 22}[compression]
    if not -1 <= level <= highest:
        raise UsageError(
            f"--compression-level: {level} is not a level of {compression}", f"-1 is the default, {highest} the highest"
        )
    return ImageSettings(
        labels=dict(_pair_of(spec, "--label") for spec in arguments.items("label")),
        annotations=arguments.mapping("annotation"),
        auto_labels=arguments.is_set("auto-labels"),
        format=image_format,
        compression=compression,
        compression_level=level,
        single_snapshot=arguments.is_set("single-snapshot"),
        reproducible=arguments.is_set("reproducible"),
    )


def _cache_settings(arguments: Arguments, output: OutputSettings) -> CacheSettings:
    enabled, repository = arguments.is_set("cache"), arguments.text("cache-repo")
    write = not arguments.is_set("no-push-cache")
    if enabled and write and not output.push and not repository:
        raise UsageError(
            "if using cache with --no-push, specify cache repo with --cache-repo", "or read it only: --no-push-cache"
        )
    return CacheSettings(
        enabled=enabled,
        repository=repository,
        directory=Path(arguments.text("cache-dir")),
        make_directory="cache-dir" in arguments.given,
        directory_size=arguments.number("cache-dir-size"),
        ttl=arguments.seconds("cache-ttl"),
        run_layers=arguments.is_set("cache-run-layers"),
        copy_layers=arguments.is_set("cache-copy-layers"),
        write=write,
        mounts=cast("Literal['local', 'registry']", arguments.text("cache-mounts")),
    )


def _platforms(arguments: Arguments) -> tuple[Platform, ...]:
    custom = arguments.text("custom-platform")
    listed = tuple(dict.fromkeys(Platform.parse(text) for text in arguments.items("platform")))
    if not custom:
        return listed
    platform = Platform.parse(custom)
    if listed and listed != (platform,):
        raise UsageError("--custom-platform and --platform name different platforms", "leave out --custom-platform")
    return (platform,)


def _destinations(arguments: Arguments) -> tuple[str, ...]:
    destinations = list(arguments.items("destination"))
    for name in destinations:
        if "@" in name:
            raise UsageError(f"--destination: {name}: a digest cannot be chosen", "write REGISTRY/NAME[:TAG]")
    tags = arguments.items("tags")
    if tags and not destinations:
        raise UsageError("--tags needs a --destination", "write the full name: --destination=REGISTRY/NAME:TAG")
    for tag in tags:
        repository, colon, last = destinations[0].rpartition(":")
        if not colon or "/" in last:
            repository = destinations[0]
        destinations.append(f"{repository}:{tag}")
    return tuple(dict.fromkeys(destinations))


def _pair_of(spec: str, flag: str) -> tuple[str, str]:
    key, equals, value = spec.partition("=")
    if not equals:
        raise UsageError(f"{flag}: expected key=value, got {spec}", f"write {flag} KEY=VALUE")
    return key, value


def _path(text: object) -> Path | None:
    return Path(str(text)) if text else None
