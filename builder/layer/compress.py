"""Compressed streams: recognised by their first bytes, read in bounded memory."""

from __future__ import annotations

import bz2
import io
import lzma
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, Protocol, cast

import zstandard
from isal import igzip_lib

from builder.errors import ImageError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

Encoding = Literal["none", "gzip", "zstd", "bzip2", "xz"]

SNIFF_SIZE = 6
_MAGIC: tuple[tuple[bytes, Encoding], ...] = (
    (b"\x1f\x8b\x08", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
)
_READ_SIZE = 1 << 17
_GZIP_ERROR = cast(type[Exception], igzip_lib.IsalError)
_XZ_MEMORY = 1 << 29  # `xz -9` needs 65 MiB to read; a hostile header may ask for 4 GiB


def sniff(first: bytes) -> Encoding:
    """What a stream starting with `first` (SNIFF_SIZE bytes, fewer only if it is shorter) is compressed with."""
    for magic, encoding in _MAGIC:
        if first.startswith(magic):
            return encoding
    # zstd streams may start with a skippable frame.
    if len(first) >= 4 and first[1:4] == b"\x2a\x4d\x18" and first[0] & 0xF0 == 0x50:
        return "zstd"
    return "none"


def open_decompressed(stream: BinaryIO, encoding: Encoding | None = None) -> BinaryIO:
    """The decompressed bytes of `stream`, which is sniffed when `encoding` is None.

    Read with `read(n)`; memory is bounded by `n` and the format's window, whatever the stream says. Members or
    frames that follow each other are one stream. A damaged or truncated stream raises ImageError when the reader
    gets there. Closing the result leaves `stream` open.
    """
    source = stream
    if encoding is None:
        first = b""
        while len(first) < SNIFF_SIZE and (more := stream.read(SNIFF_SIZE - len(first))):
            first += more
        encoding = sniff(first)
        source = cast(BinaryIO, _Prefixed(first, stream))
    if encoding == "none":
        return source
    if encoding == "zstd":
        return cast(BinaryIO, _Zstd(source))
    return cast(BinaryIO, _Members(source, encoding))


class _Reader(io.RawIOBase):
    """What the streams here have in common: `read(n)` is theirs, `readinto` follows from it."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def read(self, size: int = -1) -> bytes:
        if size < 0:
            return self.readall()
        return self._next(size) if size else b""

    def readall(self) -> bytes:
        return b"".join(iter(lambda: self._next(_READ_SIZE), b""))

    def _next(self, size: int) -> bytes:
        """Up to `size` bytes, at least one unless the stream is at its end."""
        raise NotImplementedError


class _Prefixed(_Reader):
    """`first`, then the rest of the stream that it was read from."""

    def __init__(self, first: bytes, source: BinaryIO) -> None:
        super().__init__(source)
        self._first = first

    def _next(self, size: int) -> bytes:
        if self._first:
            data, self._first = self._first[:size], self._first[size:]
            return data
        return self._source.read(size)


class _Decompressor(Protocol):
    """The interface that bz2, lzma and igzip_lib share."""

    eof: bool
    needs_input: bool
    unused_data: bytes

    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


def _decompressor(encoding: Encoding) -> _Decompressor:
    made: Any
    if encoding == "gzip":
        made = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
    elif encoding == "bzip2":
        made = bz2.BZ2Decompressor()
    else:
        made = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)
    return cast(_Decompressor, made)


class _Members(_Reader):
    """gzip, bzip2 or xz: one or more members one after the other, zeros allowed as padding after each."""

    def __init__(self, source: BinaryIO, encoding: Encoding) -> None:
        super().__init__(source)
        self._encoding = encoding
        self._member = _decompressor(encoding)

    def _next(self, size: int) -> bytes:
        while True:
            if self._member.eof:
                rest = self._member.unused_data.lstrip(b"\0")
                while not rest:
                    if not (more := self._source.read(_READ_SIZE)):
                        return b""
                    rest = more.lstrip(b"\0")
                self._member = _decompressor(self._encoding)
                data = self._decompress(rest, size)
            elif self._member.needs_input:
                if not (more := self._source.read(_READ_SIZE)):
                    raise ImageError(f"truncated {self._encoding} stream")
                data = self._decompress(more, size)
            else:
                data = self._decompress(b"", size)
            if data:
                return data

    def _decompress(self, data: bytes, size: int) -> bytes:
        try:
            return self._member.decompress(data, size)
        except (_GZIP_ERROR, lzma.LZMAError, OSError, EOFError, ValueError) as error:
            raise ImageError(f"damaged {self._encoding} stream: {error}") from error


class _Zstd(_Reader):
    """zstd frames, skippable ones included."""

    def __init__(self, source: BinaryIO) -> None:
        super().__init__(source)
        self._frames = _Frames(source)
        frames = cast(BinaryIO, self._frames)
        decompressor = zstandard.ZstdDecompressor()
        self._reader = decompressor.stream_reader(frames, read_size=_READ_SIZE, read_across_frames=True)

    def _next(self, size: int) -> bytes:
        try:
            data = self._reader.read(size)
        except zstandard.ZstdError as error:
            raise ImageError(f"damaged zstd stream: {error}") from error
        if not data and not self._frames.complete:
            raise ImageError("truncated zstd stream")
        return data


class _Frames:
    """Passes zstd data on and knows whether it ended with a frame (RFC 8878 section 3.1).

    The library's streaming reader takes a truncated frame for the end of the stream, and its one-shot interface,
    which would tell, has no bound on memory.
    """

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self._state: Literal["magic", "descriptor", "block", "skippable"] = "magic"
        self._held = b""  # the part of a fixed-size field that has been seen
        self._skip = 0  # bytes to pass before the next field
        self._checksum = 0

    @property
    def complete(self) -> bool:
        return self._state == "magic" and not self._held and not self._skip

    def read(self, size: int = -1) -> bytes:
        data = self._source.read(size)
        position = 0
        while position < len(data):
            if self._skip:
                step = min(self._skip, len(data) - position)
                self._skip -= step
            else:
                width = {"magic": 4, "descriptor": 1, "block": 3, "skippable": 4}[self._state]
                step = min(width - len(self._held), len(data) - position)
                self._held += data[position : position + step]
                if len(self._held) == width:
                    field, self._held = int.from_bytes(self._held, "little"), b""
                    self._field(field)
            position += step
        return data

    def _field(self, field: int) -> None:
        if self._state == "magic":
            self._state = "skippable" if field >> 4 == 0x184D2A5 else "descriptor"
        elif self._state == "skippable":
            self._skip, self._state = field, "magic"
        elif self._state == "descriptor":
            single_segment = field >> 5 & 1
            content_size = (single_segment, 2, 4, 8)[field >> 6]
            self._skip = 1 - single_segment + (0, 1, 2, 4)[field & 3] + content_size
            self._checksum = 4 if field & 4 else 0
            self._state = "block"
        else:
            last, kind, size = field & 1, field >> 1 & 3, field >> 3
            self._skip = 1 if kind == 1 else size
            if last:
                self._skip += self._checksum
                self._state = "magic"
