"""Layers of a cache, which may turn out not to be what the cache says."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import BinaryIO

from builder.errors import BuildError, RegistryError
from builder.oci.descriptor import Blob
from builder.oci.verified import BUFFER


class CacheDamaged(BuildError):
    """A cached layer cannot be had or is not what it should be: the build has to do without the cache."""


@dataclass(frozen=True, slots=True)
class CachedBlob:
    """`blob` of a cache; what reading it raises becomes CacheDamaged.

    `left` is shared by the blobs of one cache. It is set when a registry fails or does not answer: then nothing more
    is asked of it.
    """

    blob: Blob
    name: str
    left: threading.Event = field(default_factory=threading.Event, compare=False)

    def open(self) -> BinaryIO:
        """See Blob."""
        if self.left.is_set():
            raise CacheDamaged(f"cached layer {self.name}: the cache is not used any more")
        with _translated(self.name, self.left):
            stream = self.blob.open()
        return io.BufferedReader(_Stream(stream, self.name, self.left), BUFFER)


class _Stream(io.RawIOBase):
    def __init__(self, stream: BinaryIO, name: str, left: threading.Event) -> None:
        self._stream = stream
        self._name = name
        self._left = left

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]  # BufferedReader passes a memoryview
        with _translated(self._name, self._left):
            data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._stream.close()
        super().close()


@contextmanager
def _translated(name: str, left: threading.Event) -> Iterator[None]:
    try:
        yield
    except CacheDamaged:
        raise
    except BuildError as error:
        if isinstance(error, RegistryError) and (error.transient or not error.status):
            left.set()
        raise CacheDamaged(f"cached layer {name}: {error.message}", transient=error.transient) from error
    except OSError as error:
        raise CacheDamaged(f"cached layer {name}: {error.strerror or error}") from error
