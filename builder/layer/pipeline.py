"""A layer's tar stream, read ahead: decompression and digest run in threads of their own.

Decompressors and hashes release the interpreter's lock, so reading and decompressing, the diff_id, and whatever the
caller does with the tar overlap.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from queue import SimpleQueue
from types import TracebackType
from typing import BinaryIO

from builder.errors import ImageError
from builder.layer.compress import Encoding, open_decompressed

CHUNK = 1 << 18
_AHEAD = 16  # chunks between the decompressor and the reader: 4 MiB


class TarStream:
    """The uncompressed bytes of a layer, for one reader in one thread.

    A context manager: leaving it ends the threads, also when the stream was not read to its end. What goes wrong in
    a thread is raised by `read`. `progress` is told how many bytes of tar were read so far.
    """

    def __init__(
        self, stream: BinaryIO, encoding: Encoding | None = None, progress: Callable[[int], None] | None = None
    ) -> None:
        self._source = open_decompressed(stream, encoding)
        self._digest = hashlib.sha256()
        self._room: SimpleQueue[None] = SimpleQueue()
        for _ in range(_AHEAD):
            self._room.put(None)
        self._to_hash: SimpleQueue[bytes | BaseException] = SimpleQueue()
        self._ready: SimpleQueue[bytes | BaseException] = SimpleQueue()
        self._progress = progress
        self._position = 0  # bytes of tar that were read
        self._stopped = False
        self._ended = False
        self._threads = [
            threading.Thread(target=self._decompress, name="layer-decompress", daemon=True),
            threading.Thread(target=self._hash, name="layer-digest", daemon=True),
        ]

    def __enter__(self) -> TarStream:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped = True
        self._room.put(None)
        for thread in self._threads:
            thread.join()

    def read(self, size: int = -1) -> bytes:
        """The next chunk (CHUNK bytes or less, whatever `size` says); b"" at the end."""
        if self._ended:
            return b""
        item = self._ready.get()
        if isinstance(item, BaseException):
            self._ended = True
            raise item
        self._ended = not item
        self._position += len(item)
        if self._progress is not None:
            self._progress(self._position)
        self._room.put(None)
        return item

    def finish(self, expected: str | None = None) -> str:
        """Read to the end; the diff_id. Raises ImageError when it is not `expected`."""
        while self.read():
            pass
        found = "sha256:" + self._digest.hexdigest()
        if expected is not None and found != expected:
            raise ImageError(f"its diff_id is {found} where the image's config says {expected}")
        return found

    def _decompress(self) -> None:
        try:
            data: bytes | None = None
            while data != b"":
                self._room.get()
                if self._stopped:
                    break
                data = self._source.read(CHUNK)
                self._to_hash.put(data)
        except BaseException as error:
            self._to_hash.put(error)
        else:
            self._to_hash.put(b"")

    def _hash(self) -> None:
        while True:
            item = self._to_hash.get()
            if isinstance(item, bytes):
                self._digest.update(item)
            self._ready.put(item)
            if not item or isinstance(item, BaseException):
                return
