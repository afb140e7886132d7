"""Layers of a cache, which may turn out not to be what the cache says."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

from builder.errors import BuildError
from builder.oci.descriptor import Blob
from builder.oci.verified import BUFFER


class CacheDamaged(BuildError):
    """A cached layer cannot be had or is not what it should be: the build has to do without the cache."""


@dataclass(frozen=True, slots=True)
class CachedBlob:
    """`blob` of a cache; what reading it raises becomes CacheDamaged."""

    blob: Blob
    name: str

    def open(self) -> BinaryIO:
        """See Blob."""
        with _translated(self.name):
            stream = self.blob.open()
        return io.BufferedReader(_Stream(stream, self.name), BUFFER)


class _Stream(io.RawIOBase):
    def __init__(self, stream: BinaryIO, name: str) -> None:
        self._stream = stream
        self._name = name

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]  # BufferedReader passes a memoryview
        with _translated(self._name):
            data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._stream.close()
        super().close()


@contextmanager
def _translated(name: str) -> Iterator[None]:
    try:
        yield
    except CacheDamaged:
        raise
    except BuildError as error:
        raise CacheDamaged(f"cached layer {name}: {error.message}", transient=error.transient) from error
    except OSError as error:
        raise CacheDamaged(f"cached layer {name}: {error.strerror or error}") from error
