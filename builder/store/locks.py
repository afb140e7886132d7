"""Locks on files that come and go: flock(2), which ends with its process, however that ends."""

from __future__ import annotations

import errno
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
    """An exclusive lock on the existing file `path`, None when somebody uses it. Raises like `lock_shared`.

    On NFS, flock(2) is a lock of fcntl(2): an exclusive one needs a file that is open for writing. Where another
    user's file cannot be, it is locked as it is, which local file systems allow.
    """
    return _lock_existing(path, fcntl.LOCK_EX)


def is_at(descriptor: int, path: Path) -> bool:
    """Whether the open file `descriptor` is what `path` leads to now."""
    try:
        there = os.stat(path)
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(descriptor), there)


def _lock_existing(path: Path, how: int) -> int | None:
    descriptor = _opened(path, writing=how == fcntl.LOCK_EX)
    if not _lock(descriptor, how):
        return None
    still_there = False
    try:
        still_there = is_at(descriptor, path)
    finally:
        if not still_there:
            os.close(descriptor)
    if not still_there:
        raise FileNotFoundError(path)
    return descriptor


def _opened(path: Path, *, writing: bool) -> int:
    if writing:
        try:
            return os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def _lock(descriptor: int, how: int) -> bool:
    """Lock without waiting; where somebody else has a lock in the way, close and say False."""
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        os.close(descriptor)
        return False
    except OSError as error:
        os.close(descriptor)
        if error.errno == errno.EBADF:  # NFS, and not open for writing
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES)) from error
        raise
    except BaseException:
        os.close(descriptor)
        raise
