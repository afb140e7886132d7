"""What a source of build contexts is, what it is given, and what it hands back.

This is all that a third party's source needs to know; docs/context-source-plugin.md has a complete one.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Literal, Protocol

Level = Literal["trace", "debug", "info", "warning", "error"]
Wanted = Callable[[str], bool]

GIB = 1 << 30
NO_ENVIRONMENT: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a context may take from the disk.

    `size` is bytes of file content, `entries` counts files, directories and links. `expansion` is how many times
    larger than its compressed form an archive may become, checked after the first 256 MiB. None means no limit;
    a user who states `size` means that size, so `--context-max-size` also lifts the limit on expansion.
    """

    size: int | None = 32 * GIB
    entries: int | None = 2_000_000
    expansion: float | None = 200.0


@dataclass(frozen=True, slots=True)
class Retry:
    """`attempts` in all, `delay` seconds after the first and twice as many after each next, at most `longest`."""

    attempts: int = 5
    delay: float = 0.5
    longest: float = 15.0


@dataclass(frozen=True, slots=True)
class GitOptions:
    """`--git key=value`. None means that the form of the address decides (see `git_address`).

    `depth` 0 fetches the whole history; None is 1, a shallow clone.
    """

    branch: str = ""
    single_branch: bool = False
    depth: int | None = None
    recurse_submodules: bool | None = None
    insecure_skip_tls: bool = False
    keep_git_dir: bool | None = None


class ArtifactLayer(Protocol):
    """A blob of an artifact in a registry. `title` is its annotation org.opencontainers.image.title, or ""."""

    @property
    def digest(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def media_type(self) -> str: ...
    @property
    def title(self) -> str: ...
    def chunks(self) -> Iterable[bytes]:
        """The blob's bytes as stored; ends with an error when they do not have `digest`."""
        ...


class Artifact(Protocol):
    """An image or artifact of a registry: `digest` of its manifest and the layers in their order."""

    @property
    def digest(self) -> str: ...
    @property
    def layers(self) -> Iterable[ArtifactLayer]: ...


# Takes REGISTRY/REPO[:TAG|@DIGEST]. Raises BuildError when the registry refuses.
RegistryPull = Callable[[str], Artifact]


def no_progress(done: int, total: int) -> None:
    """Progress that nobody looks at."""


def nothing_to_do(path: Path) -> None:
    """For news that nobody waits for."""


def no_log(level: Level, text: str) -> None:
    """A log that nobody reads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchSettings:
    """All that a source may know of its surroundings.

    `environment` is the only environment a source looks at: credentials may have left the process's own already.
    `progress` is called with bytes done and bytes in all (0: unknown), `log` with a line, both from any thread.
    `sub_path` and `dockerfile` are relative to the context; a source may use them to fetch less, `fetch` enforces
    `sub_path`. `make_filter` turns the text of a .dockerignore into a predicate over the paths of files, for the
    sources that can leave files where they are. `dockerfile_seen` is told the Dockerfile's path as soon as the file is
    there, by sources that have it before the rest; what it does must not raise. `stdin` is the descriptor behind
    `tar://stdin`.
    """

    environment: Mapping[str, str] = field(default_factory=lambda: NO_ENVIRONMENT, repr=False)
    progress: Callable[[int, int], None] = no_progress
    log: Callable[[Level, str], None] = no_log
    sub_path: str = ""
    dockerfile: str = "Dockerfile"
    limits: Limits = Limits()
    retry: Retry = Retry()
    git: GitOptions = GitOptions()
    header_file: Path | None = None
    allow_http: bool = False
    stdin: int = 0
    make_filter: Callable[[str], Wanted] | None = None
    dockerfile_seen: Callable[[Path], None] = nothing_to_do
    registry_pull: RegistryPull | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """A context on this machine.

    `path` is the directory to build from. `source` is the location without any credential, `revision` what exactly
    was fetched ("" where a source cannot tell) and `revision_kind` what that is: commit, digest, etag, generation,
    version. `time` is when that was made, in seconds since 1970, as git and web servers say it; None for the others.
    """

    path: Path
    source: str
    revision: str = ""
    revision_kind: str = ""
    time: int | None = None


def dockerfile_path(settings: FetchSettings) -> str:
    """Where the Dockerfile lies below the directory that a source fills; "" when it is outside of the context."""
    path = posixpath.normpath(posixpath.join("/", settings.sub_path.lstrip("/"), settings.dockerfile))
    outside = settings.dockerfile.startswith("/") or "://" in settings.dockerfile
    return "" if outside else path.lstrip("/")


class ContextSource(Protocol):
    """Fetches build contexts of one kind."""

    def fetch(self, location: str, into: Path, settings: FetchSettings) -> Fetched:
        """Put what is at `location` into `into`, an empty directory, or name a directory that is there already.

        Raises ContextError; what was written by then is removed by the caller.
        """
        ...
