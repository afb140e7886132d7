"""Compressed layers by digest: kept while they are pulled, and read instead of pulling them again."""

from __future__ import annotations

import hashlib
import io
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import BinaryIO

from builder.oci.blobs import FileBlob
from builder.oci.descriptor import Blob, Descriptor
from builder.store.entries import Entries, Entry, Making, name_of

KIND = "blobs"
_BUFFER = 1 << 20


class StoredBlobs:
    """The blobs of a store. Thread-safe."""

    def __init__(self, entries: Entries) -> None:
        self._entries = entries
        self._lock = threading.Lock()
        self._checking: dict[str, threading.Lock] = {}
        self._good: dict[str, Entry] = {}  # those whose digest was checked, by name

    def blob(self, descriptor: Descriptor, origin: Blob) -> Blob:
        """The bytes of `descriptor`: from the store, or from `origin`, and then they are kept."""
        return StoredBlob(descriptor, origin, self)

    def has(self, descriptor: Descriptor) -> bool:
        """Whether the blob is here, whole: its digest is checked."""
        return self._entry(descriptor) is not None

    def open(self, descriptor: Descriptor, origin: Blob) -> BinaryIO:
        """A stream over the bytes. Raises what opening and reading `origin` raises."""
        entry = self._entry(descriptor)
        if entry is None:
            making = self._entries.make(KIND, name_of(descriptor.digest), wait=False)
            if isinstance(making, Making):
                return _kept(origin.open, making, descriptor.size, self._entries)
            entry = self._entry(descriptor)
        if entry is None:
            return origin.open()
        return FileBlob(entry.path / "data", descriptor).open()

    def _entry(self, descriptor: Descriptor) -> Entry | None:
        """The entry, whose digest this process has checked once: a reader is never given half of a damaged blob."""
        with self._lock:
            lock = self._checking.setdefault(descriptor.digest, threading.Lock())
        with lock:
            entry = self._entries.open(KIND, name_of(descriptor.digest))
            if entry is None or self._good.get(entry.name) is entry:
                return entry
            reason = _damage(entry, descriptor.digest)
            if not reason:
                self._good[entry.name] = entry
                return entry
            self._entries.remove(entry, reason)
            return None


@dataclass(frozen=True, slots=True)
class StoredBlob:
    """A Blob that `blobs` may have; `origin` is where it is from."""

    descriptor: Descriptor
    origin: Blob
    blobs: StoredBlobs = field(compare=False, repr=False)

    def open(self) -> BinaryIO:
        """See Blob."""
        return self.blobs.open(self.descriptor, self.origin)


def _damage(entry: Entry, digest: str) -> str:
    """What is wrong with the entry; "" if nothing is."""
    algorithm, _, wanted = digest.partition(":")
    try:
        with open(entry.path / "data", "rb") as file:
            found = hashlib.file_digest(file, algorithm).hexdigest()
    except OSError as error:
        return error.strerror or str(error)
    return "" if found == wanted else f"its digest is {algorithm}:{found}"


def _kept(open_origin: Callable[[], BinaryIO], making: Making, size: int, entries: Entries) -> BinaryIO:
    """The origin's stream, which is written into the store as it is read. `size` is in bytes."""
    try:
        source = open_origin()
    except BaseException:
        making.abandon()
        raise
    return io.BufferedReader(_Kept(source, making, size, entries), _BUFFER)


class _Kept(io.RawIOBase):
    """`source`, which checks itself against the descriptor: its last bytes are given out only if all are right."""

    def __init__(self, source: BinaryIO, making: Making, size: int, entries: Entries) -> None:
        self._source = source
        self._making = making
        self._size = size
        self._entries = entries
        self._left = size
        self._file = -1  # descriptor of what is kept; -1 when no more are kept
        try:
            self._file = os.open(making.path / "data", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        except OSError as error:
            self._give_up(error)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]  # BufferedReader passes a memoryview
        data = self._source.read(len(buffer))
        buffer[: len(data)] = data
        self._left -= len(data)
        self._write(data)
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._source.close()
            self._end()
            self._making.abandon()
        super().close()

    def _write(self, data: bytes) -> None:
        if self._file < 0 or not data:
            return
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(self._file, view) :]
        except OSError as error:
            self._give_up(error)
            return
        if self._left == 0:
            self._end()
            self._making.finish(self._size)

    def _give_up(self, error: OSError) -> None:
        self._entries.failed(error)
        self._end()
        self._making.abandon()

    def _end(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
