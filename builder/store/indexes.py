"""Indexes of layers by diff_id: what is at which path, without the files' contents."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

from builder.errors import ImageError
from builder.layer.index_json import decode_index, encode_index
from builder.oci.image import Layer
from builder.rootfs.entry import Change
from builder.store.entries import Entries, Making, name_of

KIND = "indexes"


class StoredIndexes:
    """The indexes of a store; see builder.layer.index.KnownIndexes. Thread-safe."""

    def __init__(self, entries: Entries, unpacked: Callable[[str], Path | None]) -> None:
        """`unpacked` finds the directory of a layer by its diff_id."""
        self._entries = entries
        self._unpacked = unpacked

    def get(self, layer: Layer) -> list[Change] | None:
        """The layer's changes. Regular files have content None, but for those that users are looked up in."""
        entry = self._entries.open(KIND, name_of(layer.diff_id))
        if entry is None:
            return None
        try:
            data = (entry.path / "changes.json").read_bytes()
            if hashlib.sha256(data).hexdigest() != entry.value["sha256"]:
                raise ValueError("its digest is another one")
            return decode_index(data)
        except (ImageError, OSError, ValueError, KeyError) as error:
            self._entries.remove(entry, str(error))
            return None

    def put(self, layer: Layer, changes: Iterable[Change]) -> None:
        """Keep the index of a layer; does nothing where that cannot be done."""
        making = self._entries.make(KIND, name_of(layer.diff_id), wait=False)
        if not isinstance(making, Making):
            return
        try:
            data = encode_index(changes)
            (making.path / "changes.json").write_bytes(data)
            making.finish(len(data), sha256=hashlib.sha256(data).hexdigest())
        except OSError as error:
            self._entries.failed(error)
        finally:
            making.abandon()

    def forget(self, layer: Layer, reason: str) -> bool:
        """See KnownIndexes."""
        entry = self._entries.open(KIND, name_of(layer.diff_id))
        if entry is not None:
            self._entries.remove(entry, reason)
        return entry is not None

    def unpacked(self, diff_id: str) -> Path | None:
        """The layer as a directory, in any form: files' contents are the same in all."""
        return self._unpacked(diff_id)
