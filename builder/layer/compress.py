"""Compressed streams: recognised by their first bytes, read and written in bounded memory."""

from __future__ import annotations

from typing import BinaryIO, Literal

Encoding = Literal["none", "gzip", "zstd", "bzip2", "xz"]


def sniff(first: bytes) -> Encoding:
    """What a stream starting with `first` (6 bytes or more) is compressed with."""
    raise NotImplementedError


def open_decompressed(stream: BinaryIO, encoding: Encoding | None = None) -> BinaryIO:
    """The decompressed bytes of `stream` (sniffed when `encoding` is None). Damage raises ImageError."""
    raise NotImplementedError
