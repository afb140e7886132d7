"""What changed in a directory: between two walks, or in an overlayfs upper directory."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

from builder.errors import IsolationError
from builder.rootfs.directory import DirectoryTree, Translate
from builder.rootfs.entry import Change, Entry, FileType, Opaque, Whiteout
from builder.rootfs.paths import join

# ctime, inode, size, mode, owner, group, file system
Status = tuple[int, int, int, int, int, int, int]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The status of every path in `directory` at one time. Contents are never read.

    Every change to a file, its content and its attributes included, changes its ctime, which no program can set.
    """

    directory: str
    skip: frozenset[str]
    statuses: Mapping[str, Status] = field(repr=False)

    @classmethod
    def of(cls, directory: str | Path, skip: Collection[str] = ()) -> Snapshot:
        """Walk `directory`; the paths (of the image) in `skip` and what is below them are left out."""
        root = str(directory)
        skipped = frozenset(skip)
        statuses = {"": status_of(os.lstat(root))}
        pending = [""]
        while pending:
            parent = pending.pop()
            with os.scandir(f"{root}/{parent}") as listing:
                for item in listing:
                    path = f"{parent}/{item.name}" if parent else item.name
                    if path in skipped:
                        continue
                    statuses[path] = status_of(item.stat(follow_symlinks=False))
                    if item.is_dir(follow_symlinks=False):
                        pending.append(path)
        return cls(root, skipped, MappingProxyType(statuses))


def changes(before: Snapshot, after: Snapshot, owners: Translate | None = None) -> Iterator[Change]:
    """From `before` to `after`, two snapshots of one directory: parents first, siblings sorted by bytes.

    The directories above a change are part of it, as in an overlayfs upper directory; the root directory is not,
    because layers do not carry it. A file with several names is there with all of them or with none, the second a
    HARDLINK to the first: moving a directory changes the path of a name and no ctime. Entries are read from the
    directory as it is when the iterator gets there.
    """
    tree = DirectoryTree(after.directory, owners)
    now, old = after.statuses, before.statuses
    changed = {path for path, status in now.items() if old.get(path) != status}
    files = {_file_id(now[path]) for path in changed if stat.S_ISREG(now[path][3])}
    changed |= {path for path, status in now.items() if _file_id(status) in files and stat.S_ISREG(status[3])}
    gone = {path for path in old if path not in now and path not in after.skip}
    # Below something that is gone, or is no directory any more, nothing need be said.
    gone = {path for path in gone if _is_directory(now.get(path.rpartition("/")[0]))}
    touched = changed | gone
    for path in list(touched):
        parent = path.rpartition("/")[0]
        while parent not in touched:
            touched.add(parent)
            parent = parent.rpartition("/")[0]
    touched.discard("")
    yield from with_hardlinks(_read(tree, sorted(touched, key=_tree_order), gone))


def overlay_changes(
    upper: str | Path,
    lowers: Sequence[str | Path] = (),
    skip: Collection[str] = (),
    owners: Translate | None = None,
) -> Iterator[Change]:
    """What overlayfs upper directory `upper` changes: parents first, siblings sorted by bytes.

    Whiteouts are character devices 0:0 (which share one inode: they are not hardlinks). overlayfs marks most new
    directories as opaque, only to save itself lookups; with `lowers`, the lower directories, only those that hide
    something are said to be. Names of one file are found among what is in the upper directory, whatever its link
    count: names that were not copied up are different files by now. The paths in `skip` and what is below them
    are left out. Raises IsolationError when the overlay was mounted with metacopy or redirect_dir.
    """
    reader = _Upper(DirectoryTree(upper, owners), [str(lower) for lower in lowers], frozenset(skip))
    return with_hardlinks(reader.read(""))


def with_hardlinks(changes: Iterable[Change]) -> Iterator[Change]:
    """FILEs that share a `link_id` become one FILE and, for their other names, HARDLINKs to it."""
    first: dict[Hashable, str] = {}
    for change in changes:
        if isinstance(change, Entry) and change.type is FileType.FILE and change.link_id is not None:
            target = first.setdefault(change.link_id, change.path)
            if target != change.path:
                yield replace(change, type=FileType.HARDLINK, target=target, size=0, content=None)
                continue
        yield change


def status_of(status: os.stat_result) -> Status:
    """What of `status` shows whether something changed."""
    return (
        status.st_ctime_ns,
        status.st_ino,
        status.st_size,
        status.st_mode,
        status.st_uid,
        status.st_gid,
        status.st_dev,
    )


def _file_id(status: Status) -> tuple[int, int]:
    return status[6], status[1]  # device, inode


def _is_directory(status: Status | None) -> bool:
    return status is not None and stat.S_ISDIR(status[3])


def _tree_order(path: str) -> list[bytes]:
    return os.fsencode(path).split(b"/")


def _read(tree: DirectoryTree, paths: Iterable[str], gone: Collection[str]) -> Iterator[Change]:
    for path in paths:
        if path in gone:
            yield Whiteout(path)
            continue
        entry = tree.entry_of(path, os.lstat(tree.location(path)))
        if entry is not None:
            yield entry


@dataclass(frozen=True, slots=True)
class _Upper:
    tree: DirectoryTree
    lowers: list[str]
    skip: frozenset[str]

    def read(self, directory: str) -> Iterator[Change]:
        with os.scandir(self.tree.location(directory)) as listing:
            found = sorted(listing, key=lambda item: os.fsencode(item.name))
        for item in found:
            path = join(directory, item.name)
            if path in self.skip:
                continue
            status = item.stat(follow_symlinks=False)
            if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
                yield Whiteout(path)
                continue
            notes = self._notes(path, status)
            entry = self.tree.entry_of(path, status)
            if entry is None:
                continue
            yield entry
            if entry.type is FileType.DIRECTORY:
                if "opaque" in notes and self._hides_something(path):
                    yield Opaque(path)
                yield from self.read(path)

    def _notes(self, path: str, status: os.stat_result) -> Collection[str]:
        """What overlayfs noted about `path`: the last words of its extended attributes."""
        if not stat.S_ISDIR(status.st_mode) and not stat.S_ISREG(status.st_mode):
            return ()
        location = self.tree.location(path)
        names = os.listxattr(location, follow_symlinks=False)
        notes = {
            name.rpartition(".")[2]
            for name in names
            if name.startswith(("trusted.overlay.", "user.overlay.")) and name.count(".") == 2
        }
        bad = notes & {"metacopy", "redirect"}
        if bad:
            raise IsolationError(
                f"overlayfs uses {' and '.join(sorted(bad))} for /{path}, so its upper directory is no complete change",
                "load the overlay module with metacopy=off and redirect_dir=off, or give --isolation=chroot",
            )
        return notes

    def _hides_something(self, path: str) -> bool:
        # An answer of yes too much is harmless; links above `path` are not followed by overlayfs.
        return not self.lowers or any(os.path.lexists(f"{lower}/{path}") for lower in self.lowers)
