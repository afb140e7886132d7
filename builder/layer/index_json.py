"""Indexes of layers as JSON: what is at which path; with contents only the files that users are looked up in."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from builder.errors import ImageError
from builder.rootfs.entry import NO_XATTRS, BytesContent, Change, Entry, FileType, Opaque, Whiteout
from builder.rootfs.users import USER_FILES

USER_FILE_LIMIT = 1 << 20  # bytes


def encode_index(changes: Iterable[Change]) -> bytes:
    """`changes` as JSON. Reads the contents of USER_FILES. Raises OSError."""
    encode = json.JSONEncoder(separators=(",", ":")).encode
    return f"[{','.join(encode(_value(change)) for change in changes)}]".encode()


def decode_index(data: bytes) -> list[Change]:
    """What `encode_index` was given. Regular files have content None, but for USER_FILES. Raises ImageError."""
    try:
        return [_change(value) for value in json.loads(data)]
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise ImageError(f"it is no index of a layer: {error}") from error


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


def _change(value: list[Any]) -> Change:
    kind, path, *rest = value
    if kind == "-":
        return Whiteout(path)
    if kind == "/":
        return Opaque(path)
    mode, uid, gid, mtime, size, target, device, xattrs, *content = rest
    return Entry(
        path,
        FileType(kind),
        mode,
        uid,
        gid,
        mtime,
        size,
        target,
        (device[0], device[1]),
        _xattrs(xattrs),
        BytesContent(base64.b64decode(content[0])) if content else None,
    )


def _xattrs(values: Mapping[str, str]) -> Mapping[str, bytes]:
    if not values:
        return NO_XATTRS
    return MappingProxyType({name: base64.b64decode(value) for name, value in values.items()})
