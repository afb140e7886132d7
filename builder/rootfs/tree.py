"""Trees: read-only views of a root filesystem, or of a build context, by path."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

from builder.rootfs.entry import Entry


class Tree(Protocol):
    """A root filesystem to read. Paths follow `builder.rootfs.entry`; no method follows a symlink.

    A path whose parent is not a directory (a symlink included) does not exist for these methods: callers
    resolve links first, with `builder.rootfs.paths.resolve`.
    """

    def entry(self, path: str) -> Entry | None:
        """What is at `path`, with content for a regular file; None if nothing is. "" is the root directory.

        Never a HARDLINK: a file with several names is a FILE with a `link_id`.
        """
        ...

    def names(self, path: str) -> list[str]:
        """The names in directory `path`, sorted by bytes; [] when it is no directory."""
        ...


@runtime_checkable
class ListingTree(Tree, Protocol):
    """A tree that lists a directory's entries faster than one by one."""

    def children(self, path: str) -> list[Entry]:
        """The entries in directory `path`, sorted by the bytes of their names; [] when it is no directory."""
        ...


def children(tree: Tree, path: str) -> Iterator[Entry]:
    """The entries in directory `path` of `tree`, sorted by the bytes of their names."""
    if isinstance(tree, ListingTree):
        yield from tree.children(path)
        return
    for name in tree.names(path):
        entry = tree.entry(f"{path}/{name}" if path else name)
        if entry is not None:  # gone since it was listed
            yield entry
