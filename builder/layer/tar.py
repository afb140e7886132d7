"""Tar archives, read entry by entry: ustar, GNU and PAX, with nothing lost.

Formats: POSIX.1-2001 (pax), the GNU tar manual (long names, base-256 numbers, sparse formats old GNU, PAX 0.0, 0.1
and 1.0) and star's SCHILY.xattr records. The standard library's tarfile is neither fast enough for whole layers
nor does it keep extended attributes.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from builder.errors import ImageError
from builder.rootfs.entry import NO_XATTRS, Entry, FileType
from builder.rootfs.paths import normalise

BLOCK = 512
CHUNK = 1 << 18
_HEADER = struct.Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12x")
_ZEROS = bytes(BLOCK)
_LARGEST_EXTENSION = 1 << 20  # a PAX header or a long name: more is an attack on memory
_LONGEST_PATH = 4095  # PATH_MAX without its NUL: the kernel takes no longer one
_OCTAL = re.compile(rb"[0-7]+")
_DECIMAL = re.compile(rb"[0-9]{1,20}")
_TIME = re.compile(rb"(-?)([0-9]{1,18})(?:\.([0-9]*))?")
_XATTR = b"SCHILY.xattr."

_TYPES = {
    b"0": FileType.FILE,
    b"\0": FileType.FILE,
    b"7": FileType.FILE,  # contiguous
    b"S": FileType.FILE,  # old GNU sparse
    b"1": FileType.HARDLINK,
    b"2": FileType.SYMLINK,
    b"3": FileType.CHARACTER_DEVICE,
    b"4": FileType.BLOCK_DEVICE,
    b"5": FileType.DIRECTORY,
    b"6": FileType.FIFO,
}


class ByteStream(Protocol):
    """Something to read; b"" is its end."""

    def read(self, size: int, /) -> bytes: ...


@dataclass(slots=True)
class _Extensions:
    """What precedes an entry's own header."""

    pax: dict[bytes, bytes]
    sparse_numbers: list[bytes]  # GNU.sparse.offset and .numbytes of format 0.0, in order
    name: bytes | None = None  # GNU long name
    link: bytes | None = None  # GNU long link


class TarReader:
    """Iterates over the entries of an uncompressed tar stream; whatever is wrong with it raises ImageError.

    Entry paths are normalised (clamped inside the root), HARDLINK targets too; SYMLINK targets are as written.
    `size` of a sparse file is its expanded size. Owners' names are ignored, as container tools do. Until the next
    entry is asked for, `data()` gives the current one's bytes. `stream.read(n)` may return less than n bytes.
    """

    def __init__(self, stream: ByteStream) -> None:
        self._read = stream.read
        self._chunk: memoryview = memoryview(b"")
        self._position = 0  # in the chunk
        self._left = 0  # bytes of the current entry's data not yet read
        self._padding = 0
        self._segments: list[tuple[int, int]] | None = None  # (offset, length): a sparse file's data
        self._globals: dict[bytes, bytes] = {}

    def __iter__(self) -> Iterator[Entry]:
        while (entry := self._next()) is not None:
            yield entry

    def data(self) -> Iterator[tuple[int, memoryview]]:
        """(offset, bytes) pieces of the current file, in order, never empty; what lies between them are zeros.

        A piece is valid until the next one is asked for.
        """
        if self._segments is None:
            offset = 0
            while self._left:
                piece = self._some(self._left)
                self._left -= len(piece)
                yield offset, piece
                offset += len(piece)
            return
        for offset, length in self._segments:
            end = offset + length
            while offset < end:
                piece = self._some(end - offset)
                self._left -= len(piece)
                yield offset, piece
                offset += len(piece)

    def drain(self) -> None:
        """Read the stream to its end: what follows the end of the archive is ignored."""
        while self._read(CHUNK):
            pass

    # -- headers

    def _next(self) -> Entry | None:
        self._discard(self._left + self._padding)
        extensions = _Extensions({}, [])
        extended = False
        while True:
            block = self._block()
            if block is None or block == _ZEROS:
                if extended:
                    raise ImageError("truncated tar: an extended header without its entry")
                if block and (self._block() or _ZEROS) != _ZEROS:
                    raise ImageError("damaged tar: something follows a block of zeros")
                self._left = self._padding = 0
                return None
            fields = _HEADER.unpack(block)
            if _stated_checksum(fields[6]) not in _checksums(block):
                raise ImageError("damaged tar: a header's checksum is wrong (or this is no tar archive)")
            kind = fields[7]
            if kind in b"xgLKX":
                extended = extended or kind != b"g"
                self._extend(kind, _size(fields[4]), extensions)
                continue
            return self._entry(kind, fields, extensions)

    def _extend(self, kind: bytes, size: int, extensions: _Extensions) -> None:
        if size > _LARGEST_EXTENSION:
            raise ImageError(f"damaged tar: an extended header of {size} bytes")
        data = self._exactly(size)
        self._discard(-size % BLOCK)
        if kind == b"L":
            extensions.name = data.split(b"\0", 1)[0]
        elif kind == b"K":
            extensions.link = data.split(b"\0", 1)[0]
        elif kind == b"g":
            _pax_records(data, self._globals, [])
        else:
            _pax_records(data, extensions.pax, extensions.sparse_numbers)

    def _entry(self, kind: bytes, fields: tuple[bytes, ...], extensions: _Extensions) -> Entry:
        pax: Mapping[bytes, bytes] = extensions.pax
        if self._globals:
            pax = {**self._globals, **extensions.pax}
        if b"" in pax.values():  # an empty value takes a global record back; an empty attribute is one
            pax = {key: value for key, value in pax.items() if value or key.startswith(_XATTR)}
        raw_name = pax.get(b"path") or extensions.name or _ustar_name(fields)
        file_type = _TYPES.get(kind)
        if file_type is None:
            raise ImageError(f"tar entry {_text(raw_name)!r} has unknown type {_text(kind)!r}")
        size = _decimal(pax[b"size"], "size") if b"size" in pax else _size(fields[4])
        if file_type is not FileType.FILE:
            size = 0  # they have no data, though some writers give a hardlink the size of its target
        elif kind == b"\0" and raw_name.endswith(b"/"):
            file_type = FileType.DIRECTORY  # before POSIX a slash was all that made a directory
        self._left, self._padding, self._segments = size, -size % BLOCK, None
        if file_type is FileType.FILE:
            if kind == b"S":
                size = self._old_sparse(fields)
            elif any(key.startswith(b"GNU.sparse.") for key in pax):
                size = self._pax_sparse(pax, extensions.sparse_numbers)
                raw_name = pax.get(b"GNU.sparse.name") or raw_name
        else:
            size = 0
        link = pax.get(b"linkpath") or extensions.link or fields[8].split(b"\0", 1)[0]
        return self._make(file_type, raw_name, link, size, fields, pax)

    def _make(
        self,
        file_type: FileType,
        raw_name: bytes,
        link: bytes,
        size: int,
        fields: tuple[bytes, ...],
        pax: Mapping[bytes, bytes],
    ) -> Entry:
        name = _text(raw_name)
        if len(raw_name) > _LONGEST_PATH or b"\0" in raw_name or b"\0" in link:
            raise ImageError(f"tar entry {name[:80]!r}...: such a name cannot exist")
        target = ""
        if file_type is FileType.HARDLINK:
            target = normalise(_text(link))
        elif file_type is FileType.SYMLINK:
            target = _text(link)
            if not target:
                raise ImageError(f"tar entry {name!r}: a symlink without a target")
        device = (0, 0)
        if file_type is FileType.CHARACTER_DEVICE or file_type is FileType.BLOCK_DEVICE:
            device = (_number(fields[12]), _number(fields[13]))
        return Entry(
            path=normalise(name),
            type=file_type,
            mode=0o777 if file_type is FileType.SYMLINK else _number(fields[1]) & 0o7777,
            uid=_owner(_decimal(pax[b"uid"], "uid") if b"uid" in pax else _number(fields[2])),
            gid=_owner(_decimal(pax[b"gid"], "gid") if b"gid" in pax else _number(fields[3])),
            mtime=_nanoseconds(pax[b"mtime"]) if b"mtime" in pax else _seconds(fields[5]) * 1_000_000_000,
            size=size,
            target=target,
            device=device,
            xattrs=_xattrs(pax) if pax else NO_XATTRS,
        )

    # -- sparse files

    def _old_sparse(self, fields: tuple[bytes, ...]) -> int:
        """Old GNU format: four segments in the header, the rest in blocks after it; the real size is in the header."""
        prefix = fields[14] + bytes(12)  # bytes 345..511 of the header
        table = prefix[386 - 345 : 386 - 345 + 4 * 24]
        extended = prefix[482 - 345]
        real = _number(prefix[483 - 345 : 483 - 345 + 12])
        segments: list[tuple[int, int]] = []
        while True:
            for at in range(0, len(table), 24):
                if not table[at : at + 24].strip(b"\0 "):
                    break
                segments.append((_size(table[at : at + 12]), _size(table[at + 12 : at + 24])))
            if not extended:
                break
            block = self._exactly(BLOCK)
            table, extended = block[: 21 * 24], block[504]
        return self._set_segments(segments, real)

    def _pax_sparse(self, pax: Mapping[bytes, bytes], numbers: list[bytes]) -> int:
        if pax.get(b"GNU.sparse.major") == b"1" and pax.get(b"GNU.sparse.minor") == b"0":
            real = _decimal(pax.get(b"GNU.sparse.realsize", b""), "GNU.sparse.realsize")
            return self._set_segments(self._sparse_map(), real)
        real = _decimal(pax.get(b"GNU.sparse.size", b""), "GNU.sparse.size")
        listed = pax[b"GNU.sparse.map"].split(b",") if b"GNU.sparse.map" in pax else numbers
        values = [_decimal(value, "GNU.sparse.map") for value in listed if value]
        if len(values) % 2:
            raise ImageError("damaged tar: a sparse map of odd length")
        return self._set_segments(list(zip(values[::2], values[1::2], strict=True)), real)

    def _sparse_map(self) -> list[tuple[int, int]]:
        """PAX format 1.0: decimal lines in the first blocks of the file's data."""
        lines: list[bytes] = []
        rest = b""
        wanted = 1
        while len(lines) < wanted:
            if self._left < BLOCK or len(rest) > BLOCK:
                raise ImageError("damaged tar: a sparse map without end")
            *more, rest = (rest + self._exactly(BLOCK)).split(b"\n")
            self._left -= BLOCK
            lines += more
            if lines:
                wanted = 1 + 2 * _decimal(lines[0], "sparse map")
        values = [_decimal(line, "sparse map") for line in lines[1:wanted]]
        return list(zip(values[::2], values[1::2], strict=True))

    def _set_segments(self, segments: list[tuple[int, int]], real: int) -> int:
        end = total = 0
        for offset, length in segments:
            if offset < end:
                raise ImageError("damaged tar: a sparse map that is not in order")
            end = offset + length
            total += length
        if end > real or total != self._left:
            raise ImageError("damaged tar: a sparse map that does not fit its file")
        self._segments = segments
        return real

    # -- bytes

    def _fill(self) -> bool:
        data = self._read(CHUNK)
        self._chunk, self._position = memoryview(data), 0
        return bool(data)

    def _some(self, most: int) -> memoryview:
        """From 1 to `most` bytes, without copying."""
        if self._position == len(self._chunk) and not self._fill():
            raise ImageError("truncated tar")
        piece = self._chunk[self._position : self._position + most]
        self._position += len(piece)
        return piece

    def _block(self) -> bytes | None:
        """The next block; None where the archive ends without the zeros that it should end with."""
        position = self._position
        if position + BLOCK <= len(self._chunk):
            self._position = position + BLOCK
            return bytes(self._chunk[position : position + BLOCK])
        if position == len(self._chunk) and not self._fill():
            return None
        return self._exactly(BLOCK)

    def _exactly(self, size: int) -> bytes:
        piece = bytes(self._some(size)) if size else b""
        while len(piece) < size:
            piece += self._some(size - len(piece))
        return piece

    def _discard(self, size: int) -> None:
        while size:
            size -= len(self._some(size))


def checksum(block: bytes) -> int:
    """The sum of a header's bytes with its checksum field taken as blanks.

    Half a block sums to less than 65521, so the low half of an Adler-32 started at 0 is the sum itself: ten times
    as fast as adding in Python.
    """
    low = zlib.adler32(block[:148] + b"        " + block[156:256], 0) & 0xFFFF
    return low + (zlib.adler32(block[256:], 0) & 0xFFFF)


def _checksums(block: bytes) -> tuple[int, int]:
    """The checksum, and the one of ancient tars that took bytes as signed."""
    unsigned = checksum(block)
    if block.isascii():
        return unsigned, unsigned
    plain = block[:148] + block[156:]
    return unsigned, unsigned - 256 * sum(byte > 127 for byte in plain)


def _stated_checksum(field: bytes) -> int:
    digits = field.split(b"\0", 1)[0].strip()
    return int(digits, 8) if _OCTAL.fullmatch(digits) else -1


def _ustar_name(fields: tuple[bytes, ...]) -> bytes:
    name = fields[0].split(b"\0", 1)[0]
    # GNU's own magic is "ustar  ": its archives have other things where ustar has the prefix.
    if fields[9] == b"ustar\x0000" and fields[14][0]:
        return fields[14].split(b"\0", 1)[0] + b"/" + name
    return name


def _number(field: bytes) -> int:
    """Octal digits, or GNU's base-256: first byte 0x80 for positive, 0xff for negative numbers."""
    if field[0] & 0x80:
        value = int.from_bytes(field, "big", signed=False)
        bits = 8 * len(field)
        if field[0] & 0x40:
            return value - (1 << bits)
        return value & ((1 << (bits - 1)) - 1)
    digits = field.strip(b"\0 ")
    if not _OCTAL.fullmatch(digits):
        digits = field.split(b"\0", 1)[0].strip()  # some writers leave old bytes behind the NUL
        if not digits:
            return 0
        if not _OCTAL.fullmatch(digits):
            raise ImageError(f"damaged tar: {_text(digits)!r} is no octal number")
    return int(digits, 8)


def _size(field: bytes) -> int:
    value = _number(field)
    if not 0 <= value < 1 << 63:
        raise ImageError(f"damaged tar: size {value}")
    return value


def _owner(number: int) -> int:
    if not 0 <= number < (1 << 32) - 1:  # the last one means "leave it" to chown(2)
        raise ImageError(f"damaged tar: owner {number}")
    return number


def _seconds(field: bytes) -> int:
    value = _number(field)
    if not -(1 << 59) < value < 1 << 59:
        raise ImageError(f"damaged tar: mtime {value}")
    return value


def _decimal(value: bytes, what: str) -> int:
    if not _DECIMAL.fullmatch(value) or int(value) >= 1 << 63:
        raise ImageError(f"damaged tar: {what} {_text(value[:40])!r}")
    return int(value)


def _nanoseconds(value: bytes) -> int:
    match = _TIME.fullmatch(value)
    if not match:
        raise ImageError(f"damaged tar: mtime {_text(value[:40])!r}")
    sign, seconds, fraction = match.groups()
    nanoseconds = int(seconds) * 1_000_000_000 + int(((fraction or b"") + b"000000000")[:9])
    return -nanoseconds if sign else nanoseconds


def _pax_records(data: bytes, records: dict[bytes, bytes], sparse_numbers: list[bytes]) -> None:
    """`length key=value\\n` records, into `records`."""
    position = 0
    while position < len(data):
        blank = data.find(b" ", position, position + 21)
        if data[position] == 0:
            return  # some writers pad with zeros and count them
        digits = data[position:blank] if blank != -1 else b""
        end = position + int(digits) if _DECIMAL.fullmatch(digits) else 0
        equals = data.find(b"=", blank, end)
        if not blank < equals < end <= len(data) or data[end - 1] != 0x0A:
            raise ImageError("damaged tar: a malformed extended header")
        key, value = data[blank + 1 : equals], data[equals + 1 : end - 1]
        if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            sparse_numbers.append(value)
        records[key] = value
        position = end


def _xattrs(pax: Mapping[bytes, bytes]) -> Mapping[str, bytes]:
    found = {_text(key[len(_XATTR) :]): value for key, value in pax.items() if key.startswith(_XATTR)}
    if any("\0" in name for name in found):
        raise ImageError("damaged tar: the name of an extended attribute")
    return MappingProxyType(found) if found else NO_XATTRS


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")
