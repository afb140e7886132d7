"""How layers are written: what a build settles before there is anything to write."""

from __future__ import annotations

from dataclasses import dataclass

from builder.oci.media_types import Compression, ImageFormat


@dataclass(frozen=True, slots=True)
class LayerFormat:
    """How a layer is written. `level` None is the compression's default (gzip and zstd: 3).

    gzip levels 0 to 3 are isal's, 4 to 9 zlib's, which is ten times slower and some percent smaller; zstd has 1 to
    22. `newest_mtime` (ns since the epoch): later mtimes are written as this one; SOURCE_DATE_EPOCH with rewritten
    timestamps is epoch * 10**9, `--reproducible` is 0.
    """

    image_format: ImageFormat = "oci"
    compression: Compression = "gzip"
    level: int | None = None
    newest_mtime: int | None = None


OCI_GZIP = LayerFormat()
