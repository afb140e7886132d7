"""Tar archives, read entry by entry: ustar, GNU and PAX, with nothing lost."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from builder.rootfs.entry import Entry


class TarReader:
    """Iterates over the entries of an uncompressed tar stream; damage raises ImageError.

    Entry paths are normalised (clamped inside the root). HARDLINK targets too. `size` of a sparse file is its
    expanded size. Between two entries `data()` gives the current one's bytes.
    """

    def __init__(self, stream: BinaryIO) -> None:
        raise NotImplementedError

    def __iter__(self) -> Iterator[Entry]:
        raise NotImplementedError

    def data(self) -> Iterator[tuple[int, bytes | memoryview]]:
        """(offset, bytes) pieces of the current file, in order; what lies between them are zeros."""
        raise NotImplementedError
