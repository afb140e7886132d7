"""The tar format: ustar, POSIX pax and GNU headers (pax: POSIX.1-2008; GNU: tar(5)), read from a stream."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from builder.errors import ContextError

BLOCK = 512
ZEROS = bytes(BLOCK)
COPIED = 1 << 16  # up to here a copy costs less than a view
LARGEST_HEADER = 1 << 20  # of a pax header or a long name; PATH_MAX is 4096

FILE, HARDLINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"
FILES = frozenset((b"0", b"\0", b"7", b"S"))
# name, mode, size, mtime, checksum, type, magic, first byte of the prefix; what ends a number is a field of its own.
COMMON = struct.Struct("100s 7sc 16x 11sc 11sc 6s2s c 100x 6s 82x c 166x")
NAMES = {CHARACTER: "a character device", BLOCK_DEVICE: "a block device", FIFO: "a named pipe"}


@dataclass(slots=True)
class Member:
    """One member. `type` is one of the constants above; `size` is what is stored, `real_size` what the file has.

    `segments` is None, or the (offset, length) pairs of a sparse file whose stored bytes follow each other.
    """

    name: bytes
    type: bytes
    mode: int
    mtime: int  # nanoseconds
    size: int
    real_size: int
    link: bytes = b""
    segments: list[tuple[int, int]] | None = None
    has_xattrs: bool = False


class Stream:
    """Bytes from chunks: exact reads for headers, and pieces for contents, of large ones without copying."""

    def __init__(self, chunks: Iterable[bytes], name: str) -> None:
        self._chunks = iter(chunks)
        self._chunk = b""
        self._at = 0  # how much of the chunk has been taken
        self.name = name

    def block(self) -> bytes | None:
        """The next 512 bytes; None at the end of the stream."""
        start = self._at
        if start + BLOCK <= len(self._chunk):
            self._at = start + BLOCK
            return self._chunk[start : start + BLOCK]
        data = b"".join(self._pieces(BLOCK, at_end=True))
        if data and len(data) < BLOCK:
            raise self.cut()
        return data or None

    def pieces(self, size: int) -> Iterable[bytes | memoryview]:
        """The next `size` bytes, in pieces. Raises ContextError when there are fewer."""
        if not size:
            return ()
        start, end = self._at, self._at + size
        if size <= COPIED and end <= len(self._chunk):
            self._at = end
            return (self._chunk[start:end],)
        return self._pieces(size, at_end=False)

    def _pieces(self, size: int, at_end: bool) -> Iterator[memoryview]:
        while size:
            if self._at == len(self._chunk):
                following = next(self._chunks, None)
                if following is None:
                    if at_end:
                        return
                    raise self.cut()
                self._chunk, self._at = following, 0
                continue
            start, self._at = self._at, min(self._at + size, len(self._chunk))
            size -= self._at - start
            yield memoryview(self._chunk)[start : self._at]

    def bytes(self, size: int) -> bytes:
        return b"".join(self.pieces(size))

    def skip(self, size: int) -> None:
        if self._at + size <= len(self._chunk):
            self._at += size
            return
        for _ in self._pieces(size, at_end=False):
            pass

    def drain(self) -> None:
        """Read to the end, so that checksums behind the archive are checked and the writer of a pipe can finish."""
        self._chunk, self._at = b"", 0
        for _ in self._chunks:
            pass

    def cut(self) -> ContextError:
        return ContextError(f"{self.name} is cut off: the archive goes on where the data ends", "upload it again")


def number(field: bytes, what: str, name: str) -> int:
    """A number of a header: octal digits, or base 256 when the first bit is set (GNU)."""
    try:
        return int(field.rstrip(b"\0 "), 8)  # nearly all of them
    except ValueError:
        pass
    if field[0] & 0x80:
        value = int.from_bytes(field, "big", signed=False) & ((1 << (8 * len(field) - 1)) - 1)
        return value - (1 << (8 * len(field) - 1)) if field[0] & 0x40 else value
    text = field.partition(b"\0")[0].strip()
    try:
        return int(text, 8) if text else 0
    except ValueError as error:
        raise ContextError(f"{name} is not a tar archive: {what} is {field!r}") from error


def sum_of(data: bytes) -> int:
    """The sum of at most 256 bytes: Adler-32 (RFC 1950) has it, modulo 65521 and begun at 1, at the speed of C."""
    return (zlib.adler32(data) & 0xFFFF) - 1


def check(header: bytes, name: str, first: bool) -> None:
    """Compare the header's checksum, over unsigned or (old archives) signed bytes."""
    stored = number(header[148:156], "a checksum", name)
    unsigned = sum_of(header[:148]) + sum_of(header[156:404]) + sum_of(header[404:])
    unsigned += 8 * 0x20  # the field itself counts as blanks
    if stored == unsigned:
        return
    if stored == unsigned - 256 * sum(1 for byte in header[:148] + header[156:] if byte > 127):
        return
    if first:
        raise ContextError(f"{name} is not a tar archive", "a context is a tar archive: plain, gzip, bzip2, xz or zstd")
    raise ContextError(f"{name} is damaged: a header's checksum is wrong", "upload it again")


def pax_records(data: bytes, name: str) -> dict[bytes, bytes]:
    """The `LENGTH KEY=VALUE` lines of a pax header. Of a key given twice the last counts."""
    records: dict[bytes, bytes] = {}
    sparse: list[bytes] = []
    while data and data[0]:
        digits, separator, _ = data[:21].partition(b" ")
        length = int(digits) if separator and digits.isdigit() else 0
        key, separator, value = data[len(digits) + 1 : max(length - 1, 0)].partition(b"=")
        if not separator or length > len(data) or data[length - 1 : length] != b"\n":
            raise ContextError(f"{name} is damaged: a pax header cannot be read", "upload it again")
        if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            sparse.append(value)
        records[key] = value
        data = data[length:]
    if sparse:
        records[b"GNU.sparse.map"] = b",".join(sparse)
    return records


def nanoseconds(text: bytes, name: str) -> int:
    """Decimal seconds, a fraction allowed, negative allowed."""
    whole, _, fraction = text.partition(b".")
    try:
        seconds = int(whole)
        rest = int(fraction[:9].ljust(9, b"0")) if fraction else 0
    except ValueError as error:
        raise ContextError(f"{name} is damaged: {text!r} is no time") from error
    return seconds * 10**9 + (-rest if whole.startswith(b"-") else rest)


def read_members(stream: Stream) -> Iterator[Member]:
    """Every member, in order. The caller takes exactly `size` bytes of each from `stream` before the next.

    Padding is skipped here. Raises ContextError for what is no archive, is damaged, or ends without its marker.
    """
    defaults: dict[bytes, bytes] = {}
    pax: dict[bytes, bytes] = {}
    long_name = long_link = b""
    first = True
    alone = True  # no header before this one, nor a global one, says more of the member
    while True:
        header = stream.block()
        if alone and header is not None and (common := common_file(header)) is not None:
            first = False
            yield common
            stream.skip(-common.size % BLOCK)
            continue
        if header == ZEROS:
            stream.drain()
            return
        if header is None:
            if first:
                raise ContextError(f"{stream.name} is empty: 0 bytes")
            raise ContextError(f"{stream.name} has no end marker: it was cut off", "upload it again")
        check(header, stream.name, first)
        first = False
        kind, size = header[156:157], number(header[124:136], "a size", stream.name)
        if size < 0:
            raise ContextError(f"{stream.name} is damaged: a size is negative", "upload it again")
        if kind in (b"x", b"g", b"X", b"L", b"K"):
            if size > LARGEST_HEADER:
                raise ContextError(f"{stream.name}: a header of {size} bytes; no name is that long")
            alone = False
            data = stream.bytes(size)
            stream.skip(-size % BLOCK)
            if kind == b"L":
                long_name = data.partition(b"\0")[0]
            elif kind == b"K":
                long_link = data.partition(b"\0")[0]
            elif kind == b"g":
                defaults = {**defaults, **pax_records(data, stream.name)}
            else:
                pax = pax_records(data, stream.name)
            continue
        member = member_of(header, size, {**defaults, **pax} if defaults or pax else pax, stream)
        if long_name and b"path" not in pax and b"GNU.sparse.name" not in pax:
            member.name = long_name
        if long_link and b"linkpath" not in pax:
            member.link = long_link
        pax, long_name, long_link = {}, b"", b""
        alone = not defaults
        if kind == b"V":  # a volume's label
            continue
        padding = -member.size % BLOCK
        yield member
        if padding:
            stream.skip(padding)


def common_file(header: bytes) -> Member | None:
    """The file that a header describes in the way of nearly all, read in a third of the time.

    None for a header that has to be looked at more closely: it may be right, and it may be damaged.
    """
    name, mode, end1, size, end2, mtime, end3, checksum, end4, kind, magic, prefix = COMMON.unpack(header)
    if kind != FILE or not end1 == end2 == end3 == b"\0" or end4 != b"\0 " or not header.isascii():
        return None
    if prefix != b"\0" and magic == b"ustar\0":
        return None
    name = name.partition(b"\0")[0]
    try:
        # As in `sum_of`: 512 bytes below 128 are no more than 256 bytes of any value. The checksum counts as blanks.
        if int(checksum, 8) != (zlib.adler32(header) & 0xFFFF) - 1 - sum(checksum) - 0x20 + 8 * 0x20:
            return None
        length = int(size, 8)
        member = Member(name, FILE, int(mode, 8) & 0o7777, int(mtime, 8) * 10**9, length, length)
    except ValueError:
        return None
    return member if length >= 0 and not name.endswith(b"/") else None


def member_of(header: bytes, size: int, pax: dict[bytes, bytes], stream: Stream) -> Member:
    """The member that a header and the pax records before it describe."""
    kind = header[156:157]
    name = header[:100].partition(b"\0")[0]
    if header[257:263] == b"ustar\0" and header[345]:
        name = header[345:500].partition(b"\0")[0] + b"/" + name
    mtime = number(header[136:148], "a time", stream.name) * 10**9
    member = Member(
        name=name,
        type=kind,
        mode=number(header[100:108], "a mode", stream.name) & 0o7777,
        mtime=mtime,
        size=size,
        real_size=size,
        link=header[157:257].partition(b"\0")[0],
    )
    if kind == b"S":
        member.segments, member.real_size = old_gnu_segments(header, stream)
    if pax:
        apply_pax(member, pax, stream)
    if kind in FILES:
        member.type = DIRECTORY if member.name.endswith(b"/") else FILE
    elif kind == b"D":
        member.type = DIRECTORY
        stream.skip(member.size + -member.size % BLOCK)  # GNU's list of the directory's names
        member.size = 0
    elif kind in (HARDLINK, SYMLINK, DIRECTORY, *NAMES):
        member.size = 0
    elif kind != b"V":
        raise ContextError(f"{stream.name}: {os.fsdecode(member.name)} has type {kind!r}, which is not supported")
    return member


def apply_pax(member: Member, pax: dict[bytes, bytes], stream: Stream) -> None:
    """What pax records say goes before what the header says. Owners are not read: a context has none."""
    try:
        if b"size" in pax:
            member.size = member.real_size = int(pax[b"size"])
    except ValueError as error:
        raise ContextError(f"{stream.name} is damaged: {pax[b'size']!r} is no size") from error
    if member.size < 0:
        raise ContextError(f"{stream.name} is damaged: a size is negative")
    member.name = pax.get(b"path", member.name)
    member.link = pax.get(b"linkpath", member.link)
    if b"mtime" in pax:
        member.mtime = nanoseconds(pax[b"mtime"], stream.name)
    member.has_xattrs = any(key.startswith((b"SCHILY.xattr.", b"LIBARCHIVE.xattr.")) for key in pax)
    if any(key.startswith(b"GNU.sparse.") for key in pax):
        pax_segments(member, pax, stream)


def pax_segments(member: Member, pax: dict[bytes, bytes], stream: Stream) -> None:
    """Sparse files in pax archives: GNU's formats 0.0 and 0.1 (a map among the records), and 1.0 (before the data)."""
    member.name = pax.get(b"GNU.sparse.name", member.name)
    try:
        member.real_size = int(pax.get(b"GNU.sparse.realsize", pax.get(b"GNU.sparse.size", b"")))
        if b"GNU.sparse.map" in pax:
            numbers = [int(text) for text in pax[b"GNU.sparse.map"].split(b",") if text]
        else:
            numbers = sparse_map_before_data(member, stream)
        pairs = list(zip(numbers[::2], numbers[1::2]))
    except ValueError as error:
        raise ContextError(f"{stream.name} is damaged: a sparse map cannot be read") from error
    member.segments = checked_segments(pairs, member.real_size, stream.name)


def sparse_map_before_data(member: Member, stream: Stream) -> list[int]:
    """Format 1.0: decimal lines, first the count of pairs, padded to whole blocks that belong to the stored size."""
    text, numbers, wanted = b"", list[int](), 1
    while len(numbers) < wanted:
        if member.size < BLOCK or wanted > LARGEST_HEADER:
            raise ValueError
        member.size -= BLOCK
        text += stream.bytes(BLOCK)
        lines = text.split(b"\n")
        text = lines.pop()
        numbers += [int(line) for line in lines if line.strip(b"\0")]
        if numbers:
            wanted = 1 + 2 * numbers[0]
    return numbers[1:wanted]


def old_gnu_segments(header: bytes, stream: Stream) -> tuple[list[tuple[int, int]], int]:
    """Type S: four pairs in the header, 21 in each extension block while a flag says that one more follows."""
    pairs: list[tuple[int, int]] = []
    table, count, more = header[386:482], 4, header[482]
    while True:
        for at in range(0, 24 * count, 24):
            if table[at] or table[at + 12]:
                offset = number(table[at : at + 12], "an offset", stream.name)
                pairs.append((offset, number(table[at + 12 : at + 24], "a length", stream.name)))
        if not more:
            break
        block = stream.bytes(BLOCK)
        if len(pairs) > LARGEST_HEADER:
            raise ContextError(f"{stream.name} is damaged: a sparse map cannot be read")
        table, count, more = block[:504], 21, block[504]
    real_size = number(header[483:495], "a size", stream.name)
    return checked_segments(pairs, real_size, stream.name), real_size


def checked_segments(pairs: list[tuple[int, int]], real_size: int, name: str) -> list[tuple[int, int]]:
    """`pairs`, when they ascend and lie within the file."""
    end = 0
    for offset, length in pairs:
        if offset < end or length < 0 or offset + length > real_size:
            raise ContextError(f"{name} is damaged: a sparse map cannot be read")
        end = offset + length
    return pairs
