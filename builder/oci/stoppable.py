"""Layers that are read to their end only as long as somebody wants them."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import BinaryIO, cast

from builder.oci.descriptor import Blob
from builder.oci.image import Image
from builder.stopping import check_wanted

_PIECE = 1 << 16  # bytes between two looks: zeros are compressed a thousand times and more


@dataclass(frozen=True, slots=True)
class StoppableBlob:
    """`blob`; reading it raises BuildError once `stopped` says that nobody wants it."""

    blob: Blob
    stopped: Callable[[], bool] = field(compare=False, repr=False)

    def open(self) -> BinaryIO:
        """See Blob."""
        return cast(BinaryIO, _Stoppable(self.blob.open(), self.stopped))


def stoppable(image: Image, stopped: Callable[[], bool]) -> Image:
    """`image` with layers that cannot be read once `stopped` is true."""
    return replace(
        image, layers=tuple(replace(layer, blob=StoppableBlob(layer.blob, stopped)) for layer in image.layers)
    )


def unwrapped(blob: Blob) -> Blob:
    """The blob itself, to see what kind it is."""
    return blob.blob if isinstance(blob, StoppableBlob) else blob


class _Stoppable(io.RawIOBase):
    def __init__(self, stream: BinaryIO, stopped: Callable[[], bool]) -> None:
        self._stream = stream
        self._stopped = stopped

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if size < 0:
            return self.readall()
        check_wanted(self._stopped)
        return self._stream.read(min(size, _PIECE))

    def readall(self) -> bytes:
        return b"".join(iter(lambda: self.read(_PIECE), b""))

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]  # BufferedReader passes a memoryview
        check_wanted(self._stopped)
        data = self._stream.read(min(len(buffer), _PIECE))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
        super().close()
