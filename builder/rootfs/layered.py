"""A tree in memory, made of layers' changes."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace

from builder.errors import ImageError
from builder.rootfs.entry import Change, Entry, FileType, Opaque, Whiteout
from builder.rootfs.paths import join, normalise, resolve

_ROOT = Entry("", FileType.DIRECTORY, 0o755)


class LayeredTree:
    """An immutable Tree; `LayeredTree()` is the empty root (FROM scratch).

    `apply` follows the same rules as `builder.layer.unpack`: both make the same tree of the same layers.
    """

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {"": _ROOT}
        self._children: dict[str, set[str]] | None = None  # the names in each directory, once somebody asked

    @classmethod
    def of(cls, layers: Iterable[Iterable[Change]]) -> LayeredTree:
        """The tree of an image: `layers` from the lowest to the highest."""
        tree = cls()
        for changes in layers:
            _lay(tree, changes)
        return tree

    def entry(self, path: str) -> Entry | None:
        return self._entries.get(path)

    def names(self, path: str) -> list[str]:
        return sorted(self._directories().get(path, ()), key=os.fsencode)

    def apply(self, changes: Iterable[Change]) -> LayeredTree:
        """A new tree: this one with one layer on top.

        Whiteouts and opaques hide what this tree has, never what the same layer brings, wherever they stand in it.
        Parents that are symlinks are followed inside the tree; missing ones become directories, 0755 and 0:0; a
        directory replaces what is no directory and the other way round. A hardlink shares the link_id of its target.
        Raises ImageError for a hardlink to nothing and for a symlink loop above an entry.
        """
        upper = LayeredTree()
        upper._entries = dict(self._entries)
        if self._children is not None:
            upper._children = {path: set(names) for path, names in self._children.items()}
        _lay(upper, changes)
        return upper

    def _directories(self) -> dict[str, set[str]]:
        """The names in each directory. Most trees are only asked for a few paths, and never need them."""
        if self._children is None:
            children: dict[str, set[str]] = {
                path: set() for path, entry in self._entries.items() if entry.type is FileType.DIRECTORY
            }
            for path in self._entries:
                if path:
                    parent, _, name = path.rpartition("/")
                    children[parent].add(name)
            self._children = children
        return self._children


def _lay(tree: LayeredTree, changes: Iterable[Change]) -> None:
    """Lay one layer on `tree`, in place; see LayeredTree.apply."""
    changes = changes if isinstance(changes, list) else list(changes)
    layer = _Application(tree, hides=not all(isinstance(change, Entry) for change in changes))
    for change in changes:
        layer.add(change)


class _Application:
    """One layer being laid on `tree`, in place."""

    def __init__(self, tree: LayeredTree, *, hides: bool) -> None:
        """`hides`: whether the layer has whiteouts or opaque directories."""
        self._tree = tree
        self._entries = tree._entries
        # What this layer brings, and the directories above it; nobody asks in a layer that hides nothing.
        self._written: set[str] | None = set() if hides else None

    def add(self, change: Change) -> None:
        if isinstance(change, Whiteout):
            self._hide(self._resolve(change.path))
        elif isinstance(change, Opaque):
            path = resolve(self._tree, change.path)
            self._make_directories(path)
            self._hide_inside(path)
        else:
            self._put(change)

    def _resolve(self, path: str) -> str:
        parent, _, name = path.rpartition("/")
        if not parent:
            return name
        known = self._entries.get(parent)
        # Only a path that is already free of links is its own answer.
        if known is not None and known.type is FileType.DIRECTORY:
            return path
        return join(resolve(self._tree, parent), name)

    def _put(self, entry: Entry) -> None:
        path = self._resolve(entry.path)
        if path != entry.path:
            entry = replace(entry, path=path)
        if not path:
            if entry.type is not FileType.DIRECTORY:
                raise ImageError(f"the root of a layer is a {entry.type.value}")
            self._entries[""] = entry
            return
        self._make_directories(path.rpartition("/")[0])
        if entry.type is FileType.HARDLINK:
            self._put_link(path, entry)
            return
        old = self._entries.get(path)
        if old is not None and not (old.type is entry.type is FileType.DIRECTORY):
            self._remove(path)
        self._insert(path, entry)

    def _insert(self, path: str, entry: Entry) -> None:
        parent, _, name = path.rpartition("/")
        self._entries[path] = entry
        children = self._tree._children
        if children is not None:
            children[parent].add(name)
            if entry.type is FileType.DIRECTORY:
                children.setdefault(path, set())
        if self._written is not None:
            while path and path not in self._written:
                self._written.add(path)
                path = path.rpartition("/")[0]

    def _make_directories(self, path: str) -> None:
        missing = []
        while (known := self._entries.get(path)) is None or known.type is not FileType.DIRECTORY:
            if known is not None:
                self._remove(path)
            missing.append(path)
            path = path.rpartition("/")[0]
        for path in reversed(missing):
            self._insert(path, Entry(path, FileType.DIRECTORY, 0o755))

    def _put_link(self, path: str, entry: Entry) -> None:
        target = self._resolve(normalise(entry.target))
        found = self._entries.get(target)
        if found is None or found.type is FileType.DIRECTORY or target.startswith(path + "/"):
            raise ImageError(f"hardlink {entry.path}: its target {entry.target} is not there or no file")
        if target != path:
            if found.link_id is None and found.type is FileType.FILE:
                found = replace(found, link_id=object())
                self._entries[target] = found
            if path in self._entries:
                self._remove(path)
        self._insert(path, replace(found, path=path))

    def _hide(self, path: str) -> None:
        """Remove `path` as far as the layers below brought it."""
        if path not in self._entries or not path:
            return
        if self._written is not None and path in self._written:
            self._hide_inside(path)
        else:
            self._remove(path)

    def _hide_inside(self, path: str) -> None:
        for name in list(self._tree._directories().get(path, ())):
            self._hide(join(path, name))

    def _remove(self, path: str) -> None:
        is_directory = self._entries[path].type is FileType.DIRECTORY
        children = self._tree._directories() if is_directory else self._tree._children
        parent, _, name = path.rpartition("/")
        if children is not None:
            children[parent].discard(name)
        doomed = [path]
        while doomed:
            path = doomed.pop()
            self._entries.pop(path, None)
            if self._written is not None:
                self._written.discard(path)
            if children is not None:
                doomed.extend(join(path, child) for child in children.pop(path, ()))
