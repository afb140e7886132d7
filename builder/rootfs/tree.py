"""Trees: read-only views of a root filesystem, or of a build context, by path."""

from __future__ import annotations

from typing import Protocol

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
