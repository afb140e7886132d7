"""Arithmetic on paths of images and contexts: text only, slash-separated, no file system is asked."""

from __future__ import annotations

import posixpath


def clean(path: str) -> str:
    """`path` without `.`, `..` and doubled slashes as far as that is possible without looking; never empty."""
    path = posixpath.normpath(path)
    return path[1:] if path.startswith("//") else path  # POSIX lets exactly two leading slashes mean something else
