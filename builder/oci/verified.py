"""Streams that give out the bytes a descriptor names, or fail."""

from __future__ import annotations

import hashlib
import io
from typing import BinaryIO, Protocol

from builder.errors import ImageError
from builder.oci.descriptor import Descriptor

BUFFER = 1 << 20


def read_to_end(stream: BinaryIO) -> None:
    """Read what is left, for what reading does: a digest is compared, a copy is kept."""
    while stream.read(BUFFER):
        pass


class Source(Protocol):
    """Where bytes come from: b"" is the end, fewer bytes than asked for are not."""

    def read(self, size: int, /) -> bytes: ...

    def close(self) -> None: ...


class _Verified(io.RawIOBase):
    """`source` measured against `descriptor` as it is read."""

    def __init__(self, source: Source, descriptor: Descriptor, name: str) -> None:
        self._source = source
        self._descriptor = descriptor
        self._name = name
        self._hash = hashlib.new(descriptor.digest.partition(":")[0])
        self._left = descriptor.size
        self._checked = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]  # BufferedReader passes a memoryview
        if self._left == 0:
            # An empty blob has no last byte that would have been checked on the way.
            self._check()
            return 0
        data = self._source.read(min(len(buffer), self._left))
        if not data:
            got = self._descriptor.size - self._left
            raise ImageError(f"{self._name} ends after {got} of {self._descriptor.size} bytes")
        self._hash.update(data)
        self._left -= len(data)
        if self._left == 0:
            # Before the last bytes are handed out: a reader that stops at `size` must hear of it too.
            self._check()
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._source.close()
        super().close()

    def _check(self) -> None:
        if self._checked:
            return
        if self._source.read(1):
            raise ImageError(f"{self._name} is longer than the {self._descriptor.size} bytes of its descriptor")
        algorithm, _, wanted = self._descriptor.digest.partition(":")
        if self._hash.hexdigest() != wanted:
            raise ImageError(
                f"{self._name} does not match its digest: its bytes have {algorithm}:{self._hash.hexdigest()}",
                "it was changed where it lies, or on the way: push it again, or clear the cache between",
            )
        self._checked = True


def verified(source: Source, descriptor: Descriptor, name: str = "") -> BinaryIO:
    """A buffered stream over `source`; `name` is what errors call it.

    Reading raises ImageError instead of giving out the last bytes when size or digest differ from `descriptor`.
    Closing it closes `source`.
    """
    raw = _Verified(source, descriptor, name or f"blob {descriptor.digest}")
    return io.BufferedReader(raw, min(BUFFER, max(descriptor.size, 1)))


def read_verified(source: Source, descriptor: Descriptor, name: str = "") -> bytes:
    """All bytes of `source`, checked and closed."""
    with verified(source, descriptor, name) as stream:
        return stream.read()


def digest_of(data: bytes, algorithm: str = "sha256") -> str:
    """`algorithm:hex` of `data`."""
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"
