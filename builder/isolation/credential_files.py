"""Files that a step must not find: gone while it runs, and back afterwards."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path


def stay(paths: Iterable[Path], points: Collection[str]) -> list[str]:
    """Those of `paths` that are there and cannot be taken away: mount `points`, and what is on read-only ones."""
    real = dict.fromkeys(os.path.realpath(path) for path in paths)
    return [
        path
        for path in real
        if os.path.isfile(path) and (path in points or not os.access(os.path.dirname(path), os.W_OK))
    ]


@contextmanager
def taken_away(paths: Iterable[Path]) -> Iterator[None]:
    """Inside the context, those of `paths` that do not `stay` exist in this process's memory only.

    Afterwards they are new files with the same bytes, owner, mode and mtime.
    """
    with ExitStack() as stack:
        for path in dict.fromkeys(os.path.realpath(path) for path in paths):
            stack.enter_context(_taken(path))
        yield


@contextmanager
def _taken(path: str) -> Iterator[None]:
    try:
        status = os.lstat(path)
        if not stat.S_ISREG(status.st_mode):
            raise FileNotFoundError
        data = Path(path).read_bytes()
        os.unlink(path)
    except OSError:
        yield  # not there, or it stays: see `stay`
        return
    try:
        yield
    finally:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fchown(descriptor, status.st_uid, status.st_gid)
            os.fchmod(descriptor, stat.S_IMODE(status.st_mode))
            os.utime(descriptor, ns=(status.st_atime_ns, status.st_mtime_ns))
