"""A layer -> the list of its changes, without unpacking it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, Protocol

from builder.layer.contents import spool_file
from builder.layer.pipeline import TarStream
from builder.layer.tar import TarReader
from builder.layer.whiteouts import change_of
from builder.oci.image import Layer
from builder.oci.media_types import Compression
from builder.rootfs.entry import Change, Entry, FileType


class KnownIndexes(Protocol):
    """Indexes of layers that outlive the build. No method raises. Thread-safe."""

    def get(self, layer: Layer) -> list[Change] | None:
        """The changes of `layer` in its order, with contents of USER_FILES only."""
        ...

    def put(self, layer: Layer, changes: Iterable[Change]) -> None:
        """Keep the changes of `layer`, which have at least the contents of USER_FILES."""
        ...

    def forget(self, layer: Layer, reason: str) -> bool:
        """The index that was given of `layer` is wrong: keep it no longer. Whether that was said."""
        ...

    def unpacked(self, diff_id: str) -> Path | None:
        """The layer by itself as a directory that stays as it is until the build ends, None if there is none."""
        ...


def read_index(
    stream: BinaryIO,
    *,
    compression: Compression | None = None,
    diff_id: str | None = None,
    spool: Path | None = None,
    wanted: Callable[[str], bool] = lambda path: True,
    progress: Callable[[int], None] | None = None,
) -> list[Change]:
    """The changes of one layer, in its order; an image's tree is `lower.apply(read_index(...))`, layer by layer.

    With `spool`, contents of regular files whose path is `wanted` go into new files below that directory (FileContent);
    others have content None. The path is the archive's: symlinks above it are not resolved yet. Hardlinks are
    HARDLINK changes: who wants one must want its target. Raises ImageError when the stream is damaged or its tar
    does not have `diff_id`; files that were spooled until then stay.
    """
    changes: list[Change] = []
    files = tempfile.mkdtemp(dir=spool) if spool is not None else ""
    with TarStream(stream, compression, progress) as tar:
        reader = TarReader(tar)
        for entry in reader:
            change = change_of(entry)
            if change is None:
                continue
            if files and isinstance(change, Entry) and entry.type is FileType.FILE and wanted(entry.path):
                change = replace(change, content=spool_file(reader, f"{files}/{len(changes)}", entry.size))
            changes.append(change)
        tar.finish(diff_id)
    return changes
