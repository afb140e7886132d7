"""Indexes of layers by diff_id: what is at which path, without the files' contents."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from builder.rootfs.entry import NO_XATTRS, BytesContent, Change, Entry, FileType, Opaque, Whiteout
from builder.rootfs.users import USER_FILES
from builder.store.entries import Entries, Making, name_of

KIND = "indexes"
_USER_FILE_LIMIT = 1 << 20  # bytes


class StoredIndexes:
    """The indexes of a store; see builder.files.KnownIndexes. Thread-safe."""

    def __init__(self, entries: Entries, unpacked: Callable[[str], Path | None]) -> None:
        """`unpacked` finds the directory of a layer by its diff_id."""
        self._entries = entries
        self._unpacked = unpacked

    def get(self, diff_id: str) -> list[Change] | None:
        """The layer's changes. Regular files have content None, but for those that users are looked up in."""
        entry = self._entries.open(KIND, name_of(diff_id))
        if entry is None:
            return None
        try:
            data = (entry.path / "changes.json").read_bytes()
            if hashlib.sha256(data).hexdigest() != entry.value["sha256"]:
                raise ValueError("its digest is another one")
            return [_change(value) for value in json.loads(data)]
        except (OSError, ValueError, KeyError, TypeError) as error:
            self._entries.remove(entry, str(error))
            return None

    def put(self, diff_id: str, changes: Iterable[Change]) -> None:
        """Keep the index of a layer; does nothing where that cannot be done."""
        making = self._entries.make(KIND, name_of(diff_id), wait=False)
        if not isinstance(making, Making):
            return
        try:
            data = json.dumps([_value(change) for change in changes], separators=(",", ":")).encode()
            (making.path / "changes.json").write_bytes(data)
            making.finish(len(data), sha256=hashlib.sha256(data).hexdigest())
        except OSError as error:
            self._entries.failed(error)
        finally:
            making.abandon()

    def unpacked(self, diff_id: str) -> Path | None:
        """The layer as a directory, in any form: files' contents are the same in all."""
        return self._unpacked(diff_id)


def _value(change: Change) -> list[Any]:
    if isinstance(change, Whiteout):
        return ["-", change.path]
    if isinstance(change, Opaque):
        return ["/", change.path]
    xattrs = {name: base64.b64encode(value).decode() for name, value in change.xattrs.items()}
    value: list[Any] = [change.type.value, change.path, change.mode, change.uid, change.gid, change.mtime, change.size]
    value += [change.target, change.device, xattrs]
    if change.path in USER_FILES and change.content is not None and change.size <= _USER_FILE_LIMIT:
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
