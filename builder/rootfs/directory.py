"""A real directory as a tree."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from builder.rootfs.entry import Entry

# (entry as it is on disk, its absolute path on disk) -> entry as the image sees it
Translate = Callable[[Entry, str], Entry]


class DirectoryTree:
    """Tree over the directory `path` of this machine; `owners` turns owners on disk into those of the image."""

    def __init__(self, path: str | Path, owners: Translate | None = None) -> None:
        self.path = str(path)

    def entry(self, path: str) -> Entry | None:
        raise NotImplementedError

    def names(self, path: str) -> list[str]:
        raise NotImplementedError
