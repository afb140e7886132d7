"""The root filesystem that COPY, ADD and WORKDIR write to, and what they have written so far."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from builder.errors import BuildError
from builder.rootfs.entry import Change, Entry, FileType, Opaque, Whiteout
from builder.rootfs.tree import Tree


class PathBlocked(BuildError):
    """Something that is not a directory, or that is one, stands where the other is needed."""


@dataclass(frozen=True, slots=True)
class Owner:
    uid: int = 0
    gid: int = 0


class Destination:
    """A Tree: `base` with changes on top. Nothing is written to `base`; `changes()` is the result.

    Paths given to the writing methods have their symlinks resolved; what they write replaces what is there.
    `created` is the modification time, in nanoseconds, of directories that have to be made on the way.
    """

    def __init__(self, base: Tree, created: int) -> None:
        self._base = base
        self.created = created
        # Insertion order is parents first, and a file before the hardlinks to it.
        self._written: dict[str, Entry | Whiteout] = {}
        self._fresh: set[str] = set()  # directories that show nothing of the base
        self._opaque: set[str] = set()  # those of them that stand where the base has a directory
        self._links: dict[str, list[str]] = {}  # path of a file -> its further names

    def entry(self, path: str) -> Entry | None:
        """What is at `path` now. All names of a file with several share a `link_id`."""
        written = self._written.get(path)
        if written is None:
            return self._base.entry(path) if self._base_shows(path) else None
        if isinstance(written, Whiteout):
            return None
        if written.type is FileType.HARDLINK:
            first = self._written[written.target]
            assert isinstance(first, Entry)
            return replace(first, path=path, link_id=written.target)
        return replace(written, link_id=path) if path in self._links else written

    def names(self, path: str) -> list[str]:
        entry = self.entry(path)
        if entry is None or entry.type is not FileType.DIRECTORY:
            return []
        names = set() if path in self._fresh or not self._base_shows(path) else set(self._base.names(path))
        prefix = f"{path}/" if path else ""
        for written, change in self._written.items():
            if written.startswith(prefix) and written != path and "/" not in written[len(prefix) :]:
                (names.discard if isinstance(change, Whiteout) else names.add)(written[len(prefix) :])
        return sorted(names, key=os.fsencode)

    def is_directory(self, path: str) -> bool:
        entry = self.entry(path)
        return entry is not None and entry.type is FileType.DIRECTORY

    def make_directories(self, path: str, mode: int, owner: Owner) -> None:
        """Make directory `path` and its missing parents; what is a directory already stays as it is.

        Raises PathBlocked if one of them is something else.
        """
        missing: list[str] = []
        while (entry := self.entry(path)) is None:
            missing.append(path)
            if not path:
                break
            path = parent_of(path)
        if entry is not None and entry.type is not FileType.DIRECTORY:
            raise PathBlocked(f"/{path} is not a directory")
        for made in reversed(missing):
            self.put(Entry(made, FileType.DIRECTORY, mode, owner.uid, owner.gid, self.created))

    def put(self, entry: Entry) -> None:
        """Write `entry`, a directory's metadata or anything else; its parent must be a directory.

        A directory keeps what is in it. Something else takes the place of what was there, a directory included.
        """
        path = entry.path
        before = self.entry(path)
        was_directory = before is not None and before.type is FileType.DIRECTORY
        self._show_parents(path)
        if entry.type is FileType.DIRECTORY:
            if before is not None and not was_directory:
                self.remove(path)
            if not was_directory and path:
                self._start_directory(path)
        elif was_directory:
            self.remove(path)
            self._written.pop(path, None)
        else:
            self._forget(path)
        self._written[path] = entry
        if entry.type is FileType.HARDLINK:
            self._links.setdefault(entry.target, []).append(path)

    def link(self, first: str, path: str) -> None:
        """Make `path` another name of the file `first`, which gets into the layer for that if need be."""
        found = self.entry(first)
        if found is None or first.startswith(f"{path}/"):  # what is inside `path` goes with it
            raise PathBlocked(f"/{path} is a hardlink to /{first}, which does not exist")
        if found.type is FileType.DIRECTORY:
            raise PathBlocked(f"/{path} is a hardlink to /{first}, which is a directory")
        if self.is_directory(path):
            self.remove(path)  # first, since another name of the file may be in it
        written = self._written.get(first)
        if not isinstance(written, Entry):
            self.put(replace(found, link_id=None))
        elif written.type is FileType.HARDLINK:
            first = written.target
        if first == path:
            return
        target = self._written[first]
        assert isinstance(target, Entry)
        self.put(replace(target, path=path, type=FileType.HARDLINK, target=first, content=None))

    def update(self, path: str, *, mode: int, uid: int, gid: int, mtime: int) -> None:
        """Change metadata of what has been written at `path`; a hardlink's are those of its file."""
        entry = self._written[path]
        assert isinstance(entry, Entry)
        first = entry.target if entry.type is FileType.HARDLINK else path
        for name in (first, *self._links.get(first, ())):
            one = self._written[name]
            assert isinstance(one, Entry)
            self._written[name] = replace(one, mode=mode, uid=uid, gid=gid, mtime=mtime)

    def remove(self, path: str) -> None:
        """Take `path` away, with everything below it."""
        prefix = f"{path}/"
        for written in [written for written in self._written if written == path or written.startswith(prefix)]:
            self._forget(written)
            self._fresh.discard(written)
            self._opaque.discard(written)
        if self._base_shows(path) and self._base.entry(path) is not None:
            self._show_parents(path)
            self._written[path] = Whiteout(path)

    def changes(self) -> list[Change]:
        """Everything written: parents first, hardlinks after what they link to, parent directories included.

        Tools that unpack a layer apart from those below it would make up parents that it does not have.
        """
        changes: list[Change] = []
        for path, change in self._written.items():
            changes.append(change)
            if path in self._opaque:
                changes.append(Opaque(path))
        return changes

    def _start_directory(self, path: str) -> None:
        """`path` is about to become a directory that shows nothing of the base."""
        self._fresh.add(path)
        removed = self._written.pop(path, None)
        if isinstance(removed, Whiteout):
            below = self._base.entry(path)
            if below is not None and below.type is FileType.DIRECTORY:
                self._opaque.add(path)

    def _base_shows(self, path: str) -> bool:
        """Whether what the base has at `path` is not hidden by what has been written over a parent of it."""
        while path:
            path = parent_of(path)
            written = self._written.get(path)
            if written is not None:
                is_directory = isinstance(written, Entry) and written.type is FileType.DIRECTORY
                return is_directory and path not in self._fresh
        return True

    def _show_parents(self, path: str) -> None:
        """Have the parent directories of `path` in the layer."""
        missing: list[Entry] = []
        while path:
            path = parent_of(path)
            if not path or path in self._written:
                break
            entry = self._base.entry(path)
            assert entry is not None and entry.type is FileType.DIRECTORY, f"{path} is not a directory"
            missing.append(entry)
        for entry in reversed(missing):
            self._written[entry.path] = entry

    def _forget(self, path: str) -> None:
        """Drop what has been written at `path`. Further names of a file go on sharing one."""
        entry = self._written.pop(path, None)
        if not isinstance(entry, Entry):
            return
        if entry.type is FileType.HARDLINK:
            self._links[entry.target].remove(path)
            if not self._links[entry.target]:
                del self._links[entry.target]
        names = self._links.pop(path, [])
        if names:
            first, *others = names  # in the order written, so the others stand behind it
            self._written[first] = replace(entry, path=first)
            for name in others:
                link = self._written[name]
                assert isinstance(link, Entry)
                self._written[name] = replace(link, target=first)
            if others:
                self._links[first] = others


def parent_of(path: str) -> str:
    """The directory that `path` is in; "" is its own."""
    return path.rpartition("/")[0]
