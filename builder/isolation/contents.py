"""Copying the bytes of files, with holes where they had holes."""

from __future__ import annotations

import errno
import os
import shutil

from builder.rootfs.entry import Content, FileContent

_CHUNK = 1 << 30
_NOT_HERE = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.EBADF)


def write_content(content: Content, target: int) -> None:
    """Write all bytes of `content` into the new file open at descriptor `target`. Raises OSError."""
    if isinstance(content, FileContent):
        source = os.open(content.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _copy_extents(source, target)
        finally:
            os.close(source)
        return
    with content.open() as stream, open(target, "wb", closefd=False) as sink:
        shutil.copyfileobj(stream, sink, 1 << 20)


def _copy_extents(source: int, target: int) -> None:
    size = os.fstat(source).st_size
    start = end = 0
    while end < size:
        try:
            start = os.lseek(source, end, os.SEEK_DATA)
            end = os.lseek(source, start, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:
                break  # a hole up to the end
            start, end = end, size  # a file system that does not know holes
        _copy_range(source, target, start, end)
    os.ftruncate(target, size)


def _copy_range(source: int, target: int, start: int, end: int) -> None:
    while start < end:
        count = min(end - start, _CHUNK)
        try:
            # Shares the blocks where the file system can.
            done = os.copy_file_range(source, target, count, start, start)
        except OSError as error:
            if error.errno not in _NOT_HERE:
                raise
            os.lseek(target, start, os.SEEK_SET)
            done = os.sendfile(target, source, start, count)
        if done == 0:
            return  # the file became shorter meanwhile
        start += done
