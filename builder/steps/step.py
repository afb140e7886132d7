"""Steps: instructions with everything expanded that can be without looking into a root filesystem.

`builder.plan` makes them, `builder.stage` carries them out one after the other. `exec_config` is the image's
`config` object after the step; `history` is the entry that it adds (None: it adds none, as ONBUILD and LABEL of
the command line do).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from builder.errors import Location
from builder.oci.config import ExecConfig, History


@dataclass(frozen=True, slots=True)
class FromContext:
    """The build context."""


@dataclass(frozen=True, slots=True)
class FromNamedContext:
    """`--build-context name=...` that is a directory."""

    name: str


@dataclass(frozen=True, slots=True)
class FromStage:
    """The result of the stage with this index."""

    index: int


@dataclass(frozen=True, slots=True)
class FromImage:
    """An image that no stage is made of; `reference` as `builder.plan` normalised it."""

    reference: str


Origin = FromContext | FromNamedContext | FromStage | FromImage


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """`text` is the instruction for people: one line, nothing expanded that could be a secret."""

    location: Location
    text: str
    exec_config: ExecConfig
    history: History | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigStep(Step):
    """Changes the configuration only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MaintainerStep(Step):
    """MAINTAINER: sets the image's author."""

    author: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkdirStep(Step):
    """Makes `path` (absolute) and its parents, owned by `user` (USER's text, "" for root), unless it is there."""

    path: str
    user: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HeredocFile:
    """A heredoc of COPY or ADD: a file called `name`, `content` expanded."""

    name: str
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyStep(Step):
    """COPY. Paths are expanded; `destination` is joined to WORKDIR, absolute, and keeps a trailing `/` or `/.`."""

    origin: Origin
    sources: tuple[str, ...]
    destination: str
    heredocs: tuple[HeredocFile, ...] = ()
    chown: str = ""
    chmod: str = ""
    link: bool = False
    parents: bool = False
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AddStep(Step):
    """ADD: sources are paths of the context, URLs, or git addresses."""

    sources: tuple[str, ...]
    destination: str
    heredocs: tuple[HeredocFile, ...] = ()
    chown: str = ""
    chmod: str = ""
    link: bool = False
    checksum: str = ""
    keep_git_dir: bool | None = None
    unpack: bool | None = None
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BindMount:
    """`source` is an absolute, cleaned path in `origin`. What is written to a writable one is discarded."""

    origin: Origin
    source: str
    target: str
    writable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheMount:
    """A cache of which nothing is there yet begins as `source` (absolute, cleaned) of `origin`, empty if that is None.

    `mode`, `uid` and `gid` are those of a new, empty cache's directory.
    """

    id: str
    target: str
    sharing: Literal["shared", "private", "locked"] = "shared"
    origin: Origin | None = None
    source: str = ""
    read_only: bool = False
    mode: int = 0o755
    uid: int = 0
    gid: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TmpfsMount:
    target: str
    size: int = 0  # bytes; 0: the kernel's default


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretMount:
    """A file at `target` unless that is "", a variable `env` unless that is ""."""

    id: str
    target: str
    env: str = ""
    required: bool = False
    mode: int = 0o400
    uid: int = 0
    gid: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SshMount:
    id: str
    target: str
    required: bool = False
    mode: int = 0o600
    uid: int = 0
    gid: int = 0


RunMount = BindMount | CacheMount | TmpfsMount | SecretMount | SshMount


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStep(Step):
    """RUN. `env` has ENV, ARGs and proxies; `key_env` the part of it that decides the result (no proxies).

    `pipes` are heredoc scripts with `#!`: files mode 0755 under /dev/pipes, by name. `security` and `network`
    are what they are without `--security` and `--network` unless the build was allowed more.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(repr=False)
    key_env: Mapping[str, str] = field(repr=False)
    user: str
    cwd: str
    mounts: tuple[RunMount, ...] = ()
    network: Literal["default", "none", "host"] = "default"
    pipes: Mapping[str, str] = field(default_factory=dict)
    security: Literal["sandbox", "insecure"] = "sandbox"


def origins_of(step: Step) -> list[Origin]:
    """Where `step` reads files from, mounts included. Of ADD, nothing: it has the context and addresses only."""
    if isinstance(step, CopyStep):
        return [step.origin]
    if isinstance(step, RunStep):
        reading = [mount.origin for mount in step.mounts if isinstance(mount, BindMount | CacheMount)]
        return [origin for origin in reading if origin is not None]
    return []
