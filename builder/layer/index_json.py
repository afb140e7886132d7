"""Indexes of layers as JSON: what is at which path; with contents only the files that users are looked up in."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from builder.errors import ImageError
from builder.rootfs.entry import NO_XATTRS, BytesContent, Change, Entry, FileType, Opaque, Whiteout
from builder.rootfs.users import USER_FILES

USER_FILE_LIMIT = 1 << 20  # bytes
_PIECE = 1 << 15  # bytes of JSON that are objects of the parser's at one time
_TYPES = {kind.value: kind for kind in FileType}
_NO_DEVICE = (0, 0)


def encode_index(changes: Iterable[Change]) -> bytes:
    """`changes` as JSON, each on a line of its own. Reads the contents of USER_FILES. Raises OSError."""
    encode = json.JSONEncoder(separators=(",", ":")).encode
    lines = ",\n".join(encode(_value(change)) for change in changes)
    return f"[{lines}]".encode()


def decode_index(data: bytes) -> list[Change]:
    """What `encode_index` was given. Regular files have content None, but for USER_FILES. Raises ImageError."""
    try:
        shared: dict[int, int] = {}
        return [_change(value, shared) for piece in _pieces(data) for value in json.loads(piece)]
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise ImageError(f"it is no index of a layer: {error}") from error


def _pieces(data: bytes) -> Iterator[bytes]:
    """The JSON list `data` as shorter lists: what the parser makes of all at once takes ten times the room.

    In JSON a newline is never inside a string, and here not inside a change either.
    """
    if data[:1] != b"[" or data[-1:] != b"]":
        raise ValueError("it is no list")
    start, last = 1, len(data) - 1
    while (end := data.find(b",\n", start + _PIECE, last)) != -1:
        yield b"[%b]" % data[start:end]
        start = end + 2
    yield b"[%b]" % data[start:last]


def _value(change: Change) -> list[Any]:
    if isinstance(change, Whiteout):
        return ["-", change.path]
    if isinstance(change, Opaque):
        return ["/", change.path]
    xattrs = {name: base64.b64encode(value).decode() for name, value in change.xattrs.items()}
    value: list[Any] = [change.type.value, change.path, change.mode, change.uid, change.gid, change.mtime, change.size]
    value += [change.target, change.device, xattrs]
    if change.path in USER_FILES and change.content is not None and change.size <= USER_FILE_LIMIT:
        with change.content.open() as stream:
            value.append(base64.b64encode(stream.read()).decode())
    return value


def _change(value: list[Any], shared: dict[int, int]) -> Change:
    """`shared` has one object for numbers that many changes have."""
    kind, path, *rest = value
    if kind == "-":
        return Whiteout(path)
    if kind == "/":
        return Opaque(path)
    mode, uid, gid, mtime, size, target, device, xattrs, *content = rest
    return Entry(
        path,
        _TYPES[kind],
        shared.setdefault(mode, mode),
        shared.setdefault(uid, uid),
        shared.setdefault(gid, gid),
        shared.setdefault(mtime, mtime),
        size,
        target,
        _NO_DEVICE if device == [0, 0] else (device[0], device[1]),
        _xattrs(xattrs),
        BytesContent(base64.b64decode(content[0])) if content else None,
    )


def _xattrs(values: Mapping[str, str]) -> Mapping[str, bytes]:
    if not values:
        return NO_XATTRS
    return MappingProxyType({name: base64.b64decode(value) for name, value in values.items()})
