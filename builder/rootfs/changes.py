"""What changed in a directory: between two walks, or in an overlayfs upper directory."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from builder.rootfs.directory import Translate
from builder.rootfs.entry import Change


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The stat of every path of `directory` at one time. Contents are never read."""

    directory: str

    @classmethod
    def of(cls, directory: str | Path, skip: Collection[str] = ()) -> Snapshot:
        """Walk `directory`; the paths (of the image) in `skip` and what is below them are left out."""
        raise NotImplementedError


def changes(before: Snapshot, after: Snapshot, owners: Translate | None = None) -> Iterator[Change]:
    """From `before` to `after`, two snapshots of one directory: parents first, siblings by name."""
    raise NotImplementedError


def overlay_changes(
    upper: str | Path,
    lowers: Sequence[str | Path] = (),
    skip: Collection[str] = (),
    owners: Translate | None = None,
) -> Iterator[Change]:
    """What overlayfs upper directory `upper` changes; `lowers` (if given) tell whether an opaque marker is needed."""
    raise NotImplementedError


def with_hardlinks(changes: Iterable[Change]) -> Iterator[Change]:
    """FILEs that share a `link_id` become one FILE and HARDLINKs to it."""
    raise NotImplementedError
