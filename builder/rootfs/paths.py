"""Paths that cannot leave a root: symlinks resolved inside it, `..` stopped at it."""

from __future__ import annotations

from builder.rootfs.tree import Tree

LINK_LIMIT = 255


def normalise(path: str) -> str:
    """`path` as `builder.rootfs.entry` writes paths: no outer slashes, no `.`, and `..` clamped at the root."""
    raise NotImplementedError


def resolve(tree: Tree, path: str, follow_last: bool = True) -> str:
    """Where `path` leads inside `tree` when its symlinks are followed; the result need not exist.

    The last component is followed only with `follow_last`. Raises ImageError after 255 links.
    """
    raise NotImplementedError


def open_in_root(root: int, path: str, flags: int, mode: int = 0) -> int:
    """Open `path` as if directory `root` (a file descriptor) were `/`: openat2(RESOLVE_IN_ROOT) or the same by hand.

    Returns a close-on-exec descriptor. Raises OSError as open(2) does.
    """
    raise NotImplementedError
