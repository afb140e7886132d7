"""Locks on files that come and go: flock(2), which ends with its process, however that ends."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


def lock_of(path: Path) -> Path:
    """The lock file beside the directory `path`."""
    return path.with_name(path.name + ".lock")


def lock_new(path: Path) -> int | None:
    """An exclusive lock on `path`, which is made if it is not there: a descriptor. None when somebody has it.

    Whoever has the lock may unlink the file before closing the descriptor. Raises OSError.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        if not _lock(descriptor, fcntl.LOCK_EX):
            return None
        if is_at(descriptor, path):
            return descriptor
        os.close(descriptor)  # unlinked by its last owner since it was opened


def lock_shared(path: Path) -> int | None:
    """A shared lock on the existing file `path`, None when somebody has it exclusively.

    Raises FileNotFoundError when it is not there (any more), and OSError.
    """
    return _lock_existing(path, fcntl.LOCK_SH)


def lock_exclusive(path: Path) -> int | None:
    """An exclusive lock on the existing file `path`, None when somebody uses it. Raises like `lock_shared`."""
    return _lock_existing(path, fcntl.LOCK_EX)


def is_at(descriptor: int, path: Path) -> bool:
    """Whether the open file `descriptor` is what `path` leads to now."""
    try:
        there = os.stat(path)
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(descriptor), there)


def _lock_existing(path: Path, how: int) -> int | None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    if not _lock(descriptor, how):
        return None
    if not is_at(descriptor, path):
        os.close(descriptor)
        raise FileNotFoundError(path)
    return descriptor


def _lock(descriptor: int, how: int) -> bool:
    """Lock without waiting; where somebody else has a lock in the way, close and say False."""
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        os.close(descriptor)
        return False
    except BaseException:
        os.close(descriptor)
        raise
