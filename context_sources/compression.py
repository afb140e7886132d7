"""Decompression of a stream by what it contains, never by its name."""

from __future__ import annotations

import bz2
import itertools
import lzma
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Protocol, cast

from isal import igzip_lib, isal_zlib

from builder.errors import ContextError

CHUNK = 1 << 20  # every chunk is handed from thread to thread, which a busy machine makes slow
XZ_MEMORY = 256 << 20  # xz -9 needs 65 MiB to decompress
ZSTD_WINDOW = 1 << 27  # what the zstd program accepts unless told otherwise

DAMAGED_GZIP = cast(type[Exception], isal_zlib.error)  # its stub calls the class an instance

GZIP, BZIP2, XZ, ZSTD = b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd"
NOT_READ = {
    b"PK\x03\x04": "a zip archive",
    b"PK\x05\x06": "a zip archive",
    b"7z\xbc\xaf": "a 7z archive",
    b"Rar!": "a rar archive",
    b"\x04\x22\x4d\x18": "lz4 data",
    b"\x1f\x9d": "compress (.Z) data",
    b"LZIP": "lzip data",
    b"<!DO": "an HTML page",
    b"<htm": "an HTML page",
    b"<?xm": "an XML document",
}


class Decompressor(Protocol):
    """What bz2, lzma and isal have in common: one member of a stream."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


def decompressed(chunks: Iterable[bytes], name: str) -> Iterator[bytes]:
    """The bytes within `chunks`: gzip, bzip2, xz or zstd, several members after each other included, or as they are.

    Pieces are at most CHUNK long unless the input is not compressed, which gives Plain, so a small input cannot become
    a large piece.
    Raises ContextError, saying `name`, for damaged, cut or unknown data.
    """
    source = iter(chunks)
    head = b""
    while len(head) < 6 and (piece := next(source, None)) is not None:
        head += piece
    if not head:
        raise ContextError(f"{name} is empty: 0 bytes", "an archive without files has two blocks of zeros")
    for magic, what in NOT_READ.items():
        if head.startswith(magic):
            raise ContextError(f"{name} is {what}", "a context is a tar archive: plain, gzip, bzip2, xz or zstd")
    if head.startswith(GZIP):
        return members(head, source, lambda: igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP), "gzip", name)
    if head.startswith(BZIP2):
        return members(head, source, bz2.BZ2Decompressor, "bzip2", name)
    if head.startswith(XZ):
        return members(head, source, lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, XZ_MEMORY), "xz", name)
    if head.startswith(ZSTD) or (head[1:4] == b"\x2a\x4d\x18" and head[0] & 0xF0 == 0x50):
        return zstd_frames(head, source, name)
    return Plain(head, source)


class Plain:
    """The chunks of a stream that is not compressed: `head`, then `rest`."""

    def __init__(self, head: bytes, rest: Iterator[bytes]) -> None:
        self._chunks = itertools.chain((head,), rest)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return next(self._chunks)


def members(
    head: bytes, source: Iterator[bytes], new: Callable[[], Decompressor], kind: str, name: str
) -> Iterator[bytes]:
    """Every member of a gzip, bzip2 or xz stream. Zeros after a member are padding and are skipped."""
    current, data = new(), head
    while True:
        try:
            piece = current.decompress(data, CHUNK)
        except (lzma.LZMAError, OSError, ValueError, EOFError, DAMAGED_GZIP) as error:
            raise ContextError(f"{name} has damaged {kind} data: {error}", "upload it again") from error
        data = b""
        if piece:
            yield piece
        if current.eof:
            data = current.unused_data.lstrip(b"\0")
            while not data:
                following = next(source, None)
                if following is None:
                    return
                data = following.lstrip(b"\0")
            current = new()
        elif current.needs_input:
            following = next(source, None)
            if following is None:
                raise ContextError(f"{name} is cut off within its {kind} data", "upload it again")
            data = following


class Reader:
    """What zstandard needs of a file, over chunks."""

    def __init__(self, head: bytes, source: Iterator[bytes]) -> None:
        self._rest = memoryview(head)
        self._source = source

    def read(self, size: int = -1) -> bytes:
        while not self._rest:
            following = next(self._source, None)
            if following is None:
                return b""
            self._rest = memoryview(following)
        taken, self._rest = self._rest[:size], self._rest[size:]
        return bytes(taken)


def zstd_frames(head: bytes, source: Iterator[bytes], name: str) -> Iterator[bytes]:
    """Every frame of a zstd stream.

    The library does not tell a cut frame from the end; the tar format's own end marker does.
    """
    import zstandard  # 10 ms, needed by few

    reader = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW).stream_reader(
        cast(IO[bytes], Reader(head, source)), read_size=CHUNK, read_across_frames=True
    )
    try:
        while piece := reader.read(CHUNK):
            yield piece
    except zstandard.ZstdError as error:
        raise ContextError(f"{name} has damaged zstd data: {error}", "upload it again") from error
