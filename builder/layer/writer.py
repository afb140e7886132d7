"""Changes -> one compressed layer, in one pass through fixed-size buffers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from builder.oci.image import Layer
from builder.oci.media_types import Compression, ImageFormat
from builder.rootfs.entry import Change


@dataclass(frozen=True, slots=True)
class FileBlob:
    """A blob in a file."""

    path: Path

    def open(self) -> BinaryIO:
        return self.path.open("rb")


@dataclass(frozen=True, slots=True)
class LayerFormat:
    """How a layer is written. `level` None is the default of the compression (gzip and zstd: 3).

    `newest_mtime` (ns since the epoch): later mtimes are written as this one; SOURCE_DATE_EPOCH with rewritten
    timestamps is epoch * 10**9, `--reproducible` is 0.
    """

    image_format: ImageFormat = "oci"
    compression: Compression = "gzip"
    level: int | None = None
    newest_mtime: int | None = None


def write_layer(
    changes: Iterable[Change],
    into: Path,
    layer_format: LayerFormat = LayerFormat(),
    tee: Callable[[bytes], None] | None = None,
) -> Layer:
    """Write `changes` as a layer into a new file of directory `into`, named after its digest.

    `tee` gets the compressed bytes as they come, from another thread. No changes make the canonical empty layer.
    """
    raise NotImplementedError
