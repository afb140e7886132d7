"""Where RUN happens: the seams that every isolation implements."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from builder.oci.image import Image
from builder.rootfs.entry import Change
from builder.rootfs.tree import Tree

Network = Literal["default", "none", "host"]


@dataclass(frozen=True, slots=True)
class Bind:
    """Directory or file `source` of this machine, seen at `target`. What RUN writes to it is discarded."""

    source: Path
    target: str
    writable: bool = False


@dataclass(frozen=True, slots=True)
class Cache:
    """Directory `source`, seen at `target`, that keeps what RUN writes to it."""

    source: Path
    target: str
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class Tmpfs:
    """An empty file system in memory; `size` in bytes, 0 for the kernel's default."""

    target: str
    size: int = 0


@dataclass(frozen=True, slots=True)
class SecretFile:
    """`data` as a file that exists while this process runs, and on no disk."""

    target: str
    data: bytes = field(repr=False)
    uid: int = 0
    gid: int = 0
    mode: int = 0o400


@dataclass(frozen=True, slots=True)
class AgentSocket:
    """The ssh agent's socket `source`, seen at `target`."""

    source: Path
    target: str
    uid: int = 0
    gid: int = 0
    mode: int = 0o600


ProcessMount = Bind | Cache | Tmpfs | SecretFile | AgentSocket


@dataclass(frozen=True, slots=True)
class Process:
    """A RUN step, resolved: nothing in it is looked up or expanded any more.

    `env` is the whole environment. `uid`, `gid` and `groups` are numbers of the image. Mount targets are
    absolute paths of the image; they are made when absent, and what was made is removed afterwards.
    `insecure` keeps what this process may do from being taken away: capabilities, /sys and all of /proc.
    `output` gets stdout and stderr as they come.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(repr=False)
    cwd: str = "/"
    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    mounts: tuple[ProcessMount, ...] = ()
    network: Network = "default"
    insecure: bool = False
    hostname: str = "buildkitsandbox"
    output: Callable[[bytes], None] = lambda _: None


class Root(Protocol):
    """An image's root filesystem, unpacked, in which processes can run."""

    @property
    def path(self) -> Path:
        """The root directory as this process sees it (inside its own mount namespace, if it has one)."""
        ...

    @property
    def looks_everywhere(self) -> bool:
        """Whether `commit` looks at every file of the root; else at nothing but what changed."""
        ...

    def tree(self) -> Tree:
        """The root as it is now, owners as the image sees them."""
        ...

    def run(self, process: Process) -> None:
        """Run to its end; stray children are killed. Raises CommandFailed with the exit code (128+n for signal n)."""
        ...

    def commit(self) -> Iterable[Change]:
        """What the processes changed since the root was opened or last committed, parents first.

        The changes' contents stay readable and unchanged until the root is closed, also while further processes run.
        """
        ...

    def apply(self, changes: Iterable[Change]) -> None:
        """Make `changes`, which a COPY computed, part of the root without becoming part of the next `commit`."""
        ...


class Isolation(Protocol):
    """A way to carry out RUN."""

    @property
    def name(self) -> str:
        """As `--isolation` spells it."""
        ...

    @property
    def concurrent(self) -> bool:
        """Whether other work may go on while a step runs: other stages, uploads. Several roots may be open anyway."""
        ...

    @property
    def shares_layers(self) -> bool:
        """Whether a further root on layers that another root has costs next to nothing."""
        ...

    def keep(self, image: Image) -> bool:
        """Unpack the layers of `image` where other builds find them; False where none of them would look for them.

        Layers that a step of this build made are left out. Raises what opening a root on it raises.
        """
        ...

    def open_root(self, image: Image) -> AbstractContextManager[Root]:
        """Unpack `image` (each layer once, whichever root needs it first) and open a root on it.

        Leaving the context ends every process in it and removes what is not shared.
        """
        ...
