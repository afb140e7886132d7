"""Directories that a layer writes into without having an entry for them.

As a lower directory of its own such a layer has them with made-up metadata, and would hide what the layers below
say about them.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from builder.isolation.overlay import copy_directory_status
from builder.isolation.store import StoredLayer
from builder.layer.overlay import NeedsLayersBelow


def restore_implied(layers: Sequence[StoredLayer], directory: Path, xattr: Literal["trusted", "user"]) -> list[Path]:
    """Lower directories to lay on top of `layers` (bottom first), so that implied directories are as below.

    None or one, the new `directory`. Raises NeedsLayersBelow where an implied directory is a symlink below, so that
    its layer's files belong where that leads, and where it only holds whiteouts and is no directory below: then it
    would be there, or cover a file, and nothing was to be removed.
    """
    lookup = _Lookup(layers, f"{xattr}.overlay.opaque")
    for number, layer in enumerate(layers):
        implied = frozenset(layer.implied)
        for path in implied:
            if lookup.only_hides(layer.path, implied, path) and not lookup.is_directory_below(number, path):
                raise NeedsLayersBelow(f"a layer removes files from /{path}, which no layer below it has")
    needed = {path for layer in layers for path in layer.implied if lookup.status_source(path) is not None}
    if not needed:
        return []
    directory.mkdir()
    parents = {path[:end] for path in needed for end in range(len(path)) if path[end] == "/"}
    paths = sorted(needed | parents)
    for path in paths:
        (directory / path).mkdir(exist_ok=True)
    for path in ["", *paths]:
        # A parent without a source is on top as it should be.
        source = lookup.status_source(path) or lookup.topmost(path)
        if source is not None:
            copy_directory_status(Path(source), directory / path)
    return [directory]


class _Lookup:
    def __init__(self, layers: Sequence[StoredLayer], opaque_xattr: str) -> None:
        self._layers = [(str(layer.path), frozenset(layer.implied)) for layer in reversed(layers)]
        self._opaque = opaque_xattr

    def only_hides(self, layer: Path, implied: frozenset[str], path: str) -> bool:
        """Whether `path`, one of the implied directories of `layer`, has nothing but whiteouts in it."""
        location = f"{layer}/{path}"
        if path == "" or _has_attribute(location, self._opaque):
            return False
        with os.scandir(location) as entries:
            for entry in entries:
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
                    continue
                inside = f"{path}/{entry.name}"
                if inside not in implied or not self.only_hides(layer, implied, inside):
                    return False
        return True

    def is_directory_below(self, number: int, path: str) -> bool:
        """Whether the layers below the one of this `number` (from the bottom) have a directory at `path`."""
        for layer, _ in self._layers[len(self._layers) - number :]:
            try:
                return stat.S_ISDIR(os.lstat(f"{layer}/{path}").st_mode)
            except (FileNotFoundError, NotADirectoryError):
                if self._hides_below(layer, path):
                    return False
        return False

    def topmost(self, path: str) -> str | None:
        for layer, _ in self._layers:
            if os.path.isdir(f"{layer}/{path}"):
                return f"{layer}/{path}"
        return None

    def status_source(self, path: str) -> str | None:
        """The directory on disk that has the status of `path`, if layers above it only imply it."""
        implied_above = False
        for layer, implied in self._layers:
            location = f"{layer}/{path}"
            try:
                mode = os.lstat(location).st_mode
            except (FileNotFoundError, NotADirectoryError):
                if self._hides_below(layer, path):
                    return None
                continue
            if stat.S_ISLNK(mode) and implied_above:
                raise NeedsLayersBelow(f"/{path} is a directory in one layer and a symlink below it")
            if not stat.S_ISDIR(mode):
                return None
            if path not in implied:
                return location if implied_above else None
            implied_above = True
            if self._hides_below(layer, f"{path}/."):
                return None
        return None

    def _hides_below(self, layer: str, path: str) -> bool:
        """Whether `layer` hides what is at `path` below it, by an opaque directory or something else in its place."""
        names = path.split("/")
        for depth in range(1, len(names)):
            location = f"{layer}/{'/'.join(names[:depth])}"
            try:
                if not stat.S_ISDIR(os.lstat(location).st_mode):
                    return True
                os.getxattr(location, self._opaque)
                return True
            except FileNotFoundError:
                return False
            except OSError:
                continue  # not opaque
        return False


def _has_attribute(path: str, name: str) -> bool:
    try:
        os.getxattr(path, name)
        return True
    except OSError:
        return False
