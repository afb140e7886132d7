"""ADD of local archives: a tar, compressed or not -> changes below a directory.

The archive sees the directory as its root: `..` and absolute symlinks stop there, and nothing above it is touched.
Names that mark whiteouts in layers are ordinary names here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from builder.errors import ImageError
from builder.layer.compress import open_decompressed
from builder.layer.contents import spool_file
from builder.layer.tar import TarReader
from builder.rootfs.directory import is_image_xattr
from builder.rootfs.entry import Content, Entry, FileType
from builder.rootfs.paths import join, resolve
from builder.rootfs.tree import Tree
from builder.steps.destination import Destination, Owner, PathBlocked, parent_of

_IMPLIED_MODE = 0o755  # of directories that the archive has no entry for; they are 0:0 whatever --chown says


@contextmanager
def opened(content: Content) -> Iterator[TarReader | None]:
    """A reader at the first entry of the archive `content`, None if it is no archive (an empty one is none)."""
    with content.open() as stream:
        try:
            is_archive = next(iter(TarReader(open_decompressed(stream))), None) is not None
        except ImageError:
            is_archive = False
    if not is_archive:
        yield None
        return
    with content.open() as stream:
        yield TarReader(open_decompressed(stream))


def unpack(archive: TarReader, destination: Destination, directory: str, owner: Owner | None, spool: Path) -> None:
    """Write what `archive` holds into `directory` (symlinks resolved) of `destination`.

    Owners, modes and modification times are the archive's; `owner` replaces the owners. The directory itself stays as
    it is, whatever the archive says about `.`. Contents go into new files of directory `spool`, which has to stay as
    long as the changes. Raises ImageError for a damaged archive, PathBlocked where something is in the way.
    """
    unpacking = _Unpacking(destination, directory, owner)
    for number, entry in enumerate(archive):
        content = None
        if entry.type is FileType.FILE:
            content = spool_file(archive, f"{spool}/{number}", entry.size)
        if entry.path:
            unpacking.add(entry, content)


class _Unpacking:
    def __init__(self, destination: Destination, directory: str, owner: Owner | None) -> None:
        self._destination = destination
        self._directory = directory
        self._owner = owner
        self._root = _Below(destination, directory)
        self._parents: dict[str, str] = {"": ""}  # directory as the archive names it -> where it is

    def add(self, entry: Entry, content: Content | None) -> None:
        path = join(self._parent(parent_of(entry.path)), entry.path.rpartition("/")[2])
        full = join(self._directory, path)
        existing = self._destination.entry(full)
        if existing is not None and existing.type is not entry.type:
            self._parents = {"": ""}  # what is replaced may have been one of them
        uid, gid = (entry.uid, entry.gid) if self._owner is None else (self._owner.uid, self._owner.gid)
        mtime = max(0, entry.mtime)
        if entry.type is FileType.HARDLINK:
            first = join(self._directory, self._link_target(entry))
            self._destination.link(first, full)
            linked = self._destination.entry(full)
            assert linked is not None
            mode = linked.mode if linked.type is FileType.SYMLINK else entry.mode
            self._destination.update(full, mode=mode, uid=uid, gid=gid, mtime=mtime)
            return
        xattrs = {name: value for name, value in entry.xattrs.items() if is_image_xattr(name)}
        self._destination.put(
            replace(entry, path=full, uid=uid, gid=gid, mtime=mtime, xattrs=xattrs, content=content, link_id=None)
        )

    def _parent(self, path: str) -> str:
        """Directory `path` of the archive, made if it is missing; symlinks on the way must lead to directories."""
        known = self._parents.get(path)
        if known is not None:
            return known
        parent = self._parent(parent_of(path))
        found = join(parent, path.rpartition("/")[2])
        entry = self._root.entry(found)
        if entry is not None and entry.type is FileType.SYMLINK:
            found = resolve(self._root, found)
            entry = self._root.entry(found)
            if entry is None:
                raise PathBlocked(f"the archive's /{path} is a symbolic link that leads nowhere")
        full = join(self._directory, found) if found else self._directory
        self._destination.make_directories(full, _IMPLIED_MODE, Owner())
        self._parents[path] = found
        return found

    def _link_target(self, entry: Entry) -> str:
        parent, _, name = entry.target.rpartition("/")
        return join(resolve(self._root, parent), name)


@dataclass(frozen=True, slots=True)
class _Below:
    """Directory `directory` of `tree` as a tree of its own."""

    tree: Tree
    directory: str

    def entry(self, path: str) -> Entry | None:
        return self.tree.entry(join(self.directory, path) if path else self.directory)

    def names(self, path: str) -> list[str]:
        return self.tree.names(join(self.directory, path) if path else self.directory)
