"""Directories of a root, opened without following what an image put there."""

from __future__ import annotations

import os
from pathlib import Path


def open_directory(root: Path | str, path: str) -> int:
    """A descriptor of directory `path` of `root`, no component of which is a symlink. Raises OSError."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    for name in filter(None, path.split("/")):
        try:
            below = os.open(name, flags, dir_fd=descriptor)
        finally:
            os.close(descriptor)
        descriptor = below
    return descriptor
