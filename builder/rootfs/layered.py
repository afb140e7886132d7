"""A tree in memory, made of layers' changes."""

from __future__ import annotations

from collections.abc import Iterable

from builder.rootfs.entry import Change, Entry


class LayeredTree:
    """An immutable Tree; `LayeredTree()` is the empty root (FROM scratch)."""

    def entry(self, path: str) -> Entry | None:
        raise NotImplementedError

    def names(self, path: str) -> list[str]:
        raise NotImplementedError

    def apply(self, changes: Iterable[Change]) -> LayeredTree:
        """A new tree: this one with one layer on top. Whiteouts and opaques hide what this tree has, never what
        the same layer brings, wherever they stand in it. Missing parents become 0755 0:0 directories."""
        raise NotImplementedError
