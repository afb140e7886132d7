"""A layer -> the list of its changes, without unpacking it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from builder.oci.media_types import Compression
from builder.rootfs.entry import Change


def read_index(
    stream: BinaryIO,
    *,
    compression: Compression | None = None,
    diff_id: str | None = None,
    spool: Path | None = None,
    wanted: Callable[[str], bool] = lambda path: True,
) -> list[Change]:
    """The changes of one layer, in its order; a layer's tree is `lower.apply(read_index(...))`.

    With `spool`, contents of regular files whose path is `wanted` go into new files of that directory (FileContent);
    others have content None. Raises ImageError when the stream is damaged or its tar does not have `diff_id`.
    """
    raise NotImplementedError
