"""Layers of a cache, which may turn out not to be what the cache says."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import BinaryIO

from builder.errors import BuildError, RegistryError
from builder.oci.descriptor import Blob
from builder.oci.verified import BUFFER


class CacheDamaged(BuildError):
    """A cached layer cannot be had or is not what it should be: the build has to do without the cache.

    `told`: the cache has said so itself.
    """

    def __init__(self, message: str, *, told: bool = False) -> None:
        super().__init__(message)
        self.told = told


class Reach:
    """Whether a cache is asked at all. It is left alone once its registry fails or does not answer, which `tell` gets
    to hear once. Thread-safe."""

    def __init__(self, tell: Callable[[str], None] = lambda reason: None) -> None:
        self._tell = tell
        self._left = threading.Event()
        self._lock = threading.Lock()

    def __bool__(self) -> bool:
        return not self._left.is_set()

    def lost(self, error: BuildError) -> bool:
        """Whether `error` is of the kind that ends it; it is ended then."""
        if not isinstance(error, RegistryError) or (error.status and not error.transient):
            return False
        with self._lock:
            first = not self._left.is_set()
            self._left.set()
        if first:
            self._tell(error.message)
        return True


@dataclass(frozen=True, slots=True)
class CachedBlob:
    """`blob` of a cache; what reading it raises becomes CacheDamaged. `reach` is shared by the blobs of one cache."""

    blob: Blob
    name: str
    reach: Reach = field(default_factory=Reach, compare=False)

    def open(self) -> BinaryIO:
        """See Blob."""
        if not self.reach:
            raise CacheDamaged(f"cached layer {self.name}: the cache is not used any more", told=True)
        with _translated(self.name, self.reach):
            stream = self.blob.open()
        return io.BufferedReader(_Stream(stream, self.name, self.reach), BUFFER)


class _Stream(io.RawIOBase):
    def __init__(self, stream: BinaryIO, name: str, reach: Reach) -> None:
        self._stream = stream
        self._name = name
        self._reach = reach

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]  # BufferedReader passes a memoryview
        with _translated(self._name, self._reach):
            data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._stream.close()
        super().close()


@contextmanager
def _translated(name: str, reach: Reach) -> Iterator[None]:
    try:
        yield
    except CacheDamaged:
        raise
    except BuildError as error:
        told = reach.lost(error)
        raise CacheDamaged(f"cached layer {name}: {error.message}", told=told) from error
    except OSError as error:
        raise CacheDamaged(f"cached layer {name}: {error.strerror or error}") from error
