"""Blobs on this machine: in memory, in a file, in a part of a file."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from builder.errors import ImageError
from builder.oci.descriptor import Descriptor
from builder.oci.verified import verified


@dataclass(frozen=True, slots=True)
class MemoryBlob:
    """`data` as a Blob."""

    data: bytes = field(repr=False)

    def open(self) -> BinaryIO:
        return io.BytesIO(self.data)


@dataclass(frozen=True, slots=True)
class FileBlob:
    """The bytes of `path`, checked against `descriptor` while they are read."""

    path: Path
    descriptor: Descriptor

    def open(self) -> BinaryIO:
        """See Blob. Raises ImageError when there is no such file."""
        return verified(open_file(self.path), self.descriptor, str(self.path))


@dataclass(frozen=True, slots=True)
class RangeBlob:
    """`descriptor.size` bytes of `path` from `offset` on, checked like FileBlob."""

    path: Path
    offset: int
    descriptor: Descriptor

    def open(self) -> BinaryIO:
        """See Blob. Raises ImageError when there is no such file."""
        source = FileRange(open_file(self.path), self.offset, self.descriptor.size)
        return verified(source, self.descriptor, f"{self.path} at byte {self.offset}")


class FileRange(io.RawIOBase):
    """At most `size` bytes of an unbuffered `file` from `offset` on; closes `file` when it is closed."""

    def __init__(self, file: io.FileIO, offset: int, size: int) -> None:
        self._file = file
        self._left = size
        file.seek(offset)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]  # BufferedReader passes a memoryview
        count = self._file.readinto(memoryview(buffer)[: self._left])
        self._left -= count
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


def open_file(path: Path) -> io.FileIO:
    """`path`, unbuffered. Raises ImageError when it cannot be opened."""
    try:
        return open(path, "rb", buffering=0)
    except OSError as error:
        raise ImageError(f"cannot read {path}: {error.strerror}") from error
