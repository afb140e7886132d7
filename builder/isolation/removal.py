"""Removing directories that hold whatever an image or a step put there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

_WORKERS = 2  # unlinking is the kernel's work; it locks one directory at a time


def remove_tree(path: Path | str) -> None:
    """Remove `path` and all below it; what is not there is fine. Directories without permissions get some first.

    Works on files of other ids where this process is root over them. Raises OSError when something has to stay.
    """

    def unlock(function: object, failed: str, info: object) -> None:
        if not os.path.lexists(failed):
            return
        # rmtree reports the directory that it could not list or the entry that its parent would not let go.
        for directory in (os.path.dirname(failed), failed):
            if os.path.isdir(directory) and not os.path.islink(directory):
                os.chmod(directory, 0o700)
        if os.path.isdir(failed) and not os.path.islink(failed):
            shutil.rmtree(failed)
        else:
            os.unlink(failed)

    shutil.rmtree(path, onerror=unlock)


def remove_large_tree(path: Path) -> None:
    """remove_tree, subtrees side by side: for a directory that holds whole images."""
    with ThreadPoolExecutor(_WORKERS, "remove") as pool:
        for removed in [pool.submit(remove_tree, part) for part in _parts(path, 4)]:
            removed.result()
    remove_tree(path)


def _parts(path: Path, depth: int) -> Iterator[Path]:
    """The directories `depth` levels below `path`; in a work directory, those like layers/ID/usr/lib."""
    try:
        inside = [Path(entry.path) for entry in os.scandir(path) if entry.is_dir(follow_symlinks=False)]
    except PermissionError:
        return  # remove_tree knows what to do
    for directory in inside:
        if depth == 1:
            yield directory
        else:
            yield from _parts(directory, depth - 1)
