"""The bytes of files that a tar brings, written to the disk with their holes."""

from __future__ import annotations

import os
from collections.abc import Iterable

from builder.layer.tar import TarReader
from builder.rootfs.entry import FileContent

_HOLE = 4096  # zeros that are at least this long are not written
_ZEROS = bytes(1 << 18)


def spool_file(reader: TarReader, path: str, size: int) -> FileContent:
    """The current file of `reader`, of `size` bytes, as the new file `path`. Raises OSError."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        write_pieces(fd, reader.data(), size)
    finally:
        os.close(fd)
    return FileContent(path)


def write_pieces(fd: int, data: Iterable[tuple[int, memoryview]], size: int) -> None:
    """Write the pieces at their offsets; long runs of zeros become holes."""
    end = 0
    for offset, piece in data:
        length = len(piece)
        if length >= _HOLE and not piece[0] and not piece[-1] and bytes(piece) == _ZEROS[:length]:
            continue
        end = offset + length
        done = os.pwrite(fd, piece, offset)
        while done < length:
            done += os.pwrite(fd, piece[done:], offset + done)
    if end < size:
        os.ftruncate(fd, size)
