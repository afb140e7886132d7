"""The header blocks of tar entries, as container tools read them.

ustar as far as it goes, PAX records for what does not fit: long names and names that are not UTF-8, sizes from
8 GiB, nanoseconds, large owners, extended attributes (SCHILY.xattr.*). Devices have no PAX record: large numbers
are in GNU's base-256. Owners' names stay empty, nothing depends on the machine or the time.
"""

from __future__ import annotations

import os
import struct

from builder.errors import ImageError
from builder.layer.tar import BLOCK, checksum
from builder.rootfs.entry import Entry, FileType

_HEADER = struct.Struct("100s8s8s8s12s12s8sc100s8s32x32x8s8s155s12x")
_MAGIC = b"ustar\x0000"
_KINDS = {
    FileType.FILE: b"0",
    FileType.HARDLINK: b"1",
    FileType.SYMLINK: b"2",
    FileType.CHARACTER_DEVICE: b"3",
    FileType.BLOCK_DEVICE: b"4",
    FileType.DIRECTORY: b"5",
    FileType.FIFO: b"6",
}
_SEVEN_DIGITS = 0o7777777
_ELEVEN_DIGITS = 0o77777777777
END_OF_ARCHIVE = bytes(2 * BLOCK)


def header(entry: Entry, mtime: int) -> bytes:
    """The blocks before the data of `entry`, with `mtime` (ns) in place of its own.

    Raises ImageError for an extended attribute whose name tar cannot express.
    """
    records: dict[bytes, bytes] = {}
    raw = os.fsencode(entry.path)
    name, prefix = _split_name(raw + b"/" if entry.type is FileType.DIRECTORY else raw, records)
    link = b""
    if entry.type is FileType.SYMLINK or entry.type is FileType.HARDLINK:
        link = os.fsencode(entry.target)
        if len(link) > 100:
            _text_record(records, b"linkpath", link)
    seconds, nanoseconds = divmod(mtime, 1_000_000_000)
    if nanoseconds or not 0 <= seconds <= _ELEVEN_DIGITS:
        records[b"mtime"] = _time(mtime)
        seconds = min(max(seconds, 0), _ELEVEN_DIGITS)
    size = entry.size if entry.type is FileType.FILE else 0
    for key, value in entry.xattrs.items():
        if "=" in key:
            raise ImageError(f"{entry.path}: tar cannot hold extended attribute {key!r}, whose name has a '='")
        records[b"SCHILY.xattr." + os.fsencode(key)] = value
    block = _block(
        name,
        entry.mode,
        _number(records, b"uid", entry.uid, _SEVEN_DIGITS),
        _number(records, b"gid", entry.gid, _SEVEN_DIGITS),
        _number(records, b"size", size, _ELEVEN_DIGITS),
        seconds,
        _KINDS[entry.type],
        link[:100],
        entry.device,
        prefix,
    )
    return _extended(records, raw) + block if records else block


def _block(
    name: bytes,
    mode: int,
    uid: int,
    gid: int,
    size: int,
    mtime: int,
    kind: bytes,
    link: bytes = b"",
    device: tuple[int, int] = (0, 0),
    prefix: bytes = b"",
) -> bytes:
    block = _HEADER.pack(
        name,
        b"%07o\0" % mode,
        b"%07o\0" % uid,
        b"%07o\0" % gid,
        b"%011o\0" % size,
        b"%011o\0" % mtime,
        b"        ",
        kind,
        link,
        _MAGIC,
        _device_number(device[0]),
        _device_number(device[1]),
        prefix,
    )
    return b"%b%06o\0 %b" % (block[:148], checksum(block), block[156:])


def _extended(records: dict[bytes, bytes], name: bytes) -> bytes:
    """A PAX header: only readers without PAX see its name."""
    data = b"".join(_record(key, records[key]) for key in sorted(records))
    short = b"PaxHeaders.0/" + name.rpartition(b"/")[2][:80]
    return _block(short, 0o644, 0, 0, len(data), 0, b"x") + data + bytes(-len(data) % BLOCK)


def _record(key: bytes, value: bytes) -> bytes:
    """`length key=value\\n`, where the length counts its own digits."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    if len(str(length)) != len(str(rest)):
        length = rest + len(str(length))
    return b"%d %b=%b\n" % (length, key, value)


def _split_name(raw: bytes, records: dict[bytes, bytes]) -> tuple[bytes, bytes]:
    """(name, prefix): the rest of a name that fits into neither is a record."""
    if len(raw) <= 100:
        return raw, b""
    slash = raw.find(b"/", len(raw) - 101, len(raw) - 1)
    if 0 < slash <= 155:
        return raw[slash + 1 :], raw[:slash]
    _text_record(records, b"path", raw)
    return raw[:100], b""


def _text_record(records: dict[bytes, bytes], key: bytes, value: bytes) -> None:
    try:
        value.decode()
    except UnicodeDecodeError:
        records[b"hdrcharset"] = b"BINARY"
    records[key] = value


def _number(records: dict[bytes, bytes], key: bytes, value: int, largest: int) -> int:
    if value <= largest:
        return value
    records[key] = b"%d" % value
    return 0


def _device_number(value: int) -> bytes:
    if value <= _SEVEN_DIGITS:
        return b"%07o\0" % value
    return b"\x80" + value.to_bytes(7, "big")


def _time(nanoseconds: int) -> bytes:
    sign = b"-" if nanoseconds < 0 else b""
    seconds, fraction = divmod(abs(nanoseconds), 1_000_000_000)
    return (b"%b%d.%09d" % (sign, seconds, fraction)).rstrip(b"0").rstrip(b".")
