"""Blobs that are held in memory: configs and other small things."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import BinaryIO


@dataclass(frozen=True, slots=True)
class MemoryBlob:
    """`data` as a Blob."""

    data: bytes = field(repr=False)

    def open(self) -> BinaryIO:
        return io.BytesIO(self.data)
