"""Indexes of layers in a layer cache: what looks something up in a base image need not read the base image.

An index is an entry of the cache, under a key made of the layer's diff_id: a small layer with one file. Whatever is
wrong with one, the layer itself is read instead.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from builder.cache.blob import CacheDamaged
from builder.cache.entry import Entry, LayerCache
from builder.cache.key import CacheKey
from builder.errors import BuildError, ImageError
from builder.events import Listener, Message
from builder.layer.format import LayerFormat
from builder.oci.image import Layer
from builder.oci.media_types import layer_compression
from builder.rootfs.entry import BytesContent, Change, FileType
from builder.rootfs.entry import Entry as File

if TYPE_CHECKING:
    from builder.layer.index import KnownIndexes

_FORM = "1"  # of an index: another one has other keys
_FILE = "index.json"
INDEX_OF = "the index of layer"  # what entries that are indexes say of themselves begins so
_SMALL = 32 << 10  # bytes: such a layer is read as fast as an index
_LARGEST = 256 << 20  # bytes of JSON
_WRITERS = 2


class CachedIndexes:
    """Indexes that this machine may have (`local`), or else the cache that `begin` names; see
    builder.layer.index.KnownIndexes. Thread-safe. No method raises."""

    def __init__(self, work_dir: Path, listener: Listener, local: KnownIndexes | None = None) -> None:
        self._work_dir = work_dir
        self._listener = listener
        self._local = local
        self._cache: LayerCache | None = None
        self._write = False
        self._said = False
        self._trusted = True  # what this machine has
        self._lock = threading.Lock()
        self._there: set[str] = set()  # diff_ids of layers whose indexes the cache has, or soon will
        self._waiting: list[tuple[Layer, list[Change]]] = []
        self._writers: ThreadPoolExecutor | None = None

    def begin(self, cache: LayerCache, *, write: bool, meanwhile: bool) -> None:
        """From now on there is `cache`. With `write` new indexes go there: with `meanwhile` at once, else when
        `finish` is called."""
        with self._lock:
            self._cache, self._write = cache, write
            self._there.clear()
            if write and meanwhile and self._writers is None:
                self._writers = ThreadPoolExecutor(_WRITERS, thread_name_prefix="index-write")

    def get(self, layer: Layer) -> list[Change] | None:
        """See builder.layer.index.KnownIndexes."""
        found = self._local.get(layer) if self._local is not None and self._trusted else None
        if found is not None or self._cache is None or layer.descriptor.size < _SMALL:
            return found
        entry = self._cache.get(key_of(layer))
        if entry is None:
            return None
        try:
            found = _read(entry, layer, self._work_dir)
        except (BuildError, OSError) as error:
            text = f"the index of layer {layer.descriptor.digest} in {self._cache} is not used: {error}"
            with self._lock:
                first, self._said = not self._said, True
            told = isinstance(error, CacheDamaged) and error.told
            self._listener.tell(Message(text, "warning" if first and not told else "debug"))
            return None
        with self._lock:
            self._there.add(layer.diff_id)
        return found

    def put(self, layer: Layer, changes: Iterable[Change]) -> None:
        """See builder.layer.index.KnownIndexes."""
        if self._local is not None:
            self._local.put(layer, changes)
        if self.wants(layer):
            self.saw(layer, list(changes))

    def forget(self, layer: Layer, reason: str) -> bool:
        """See builder.layer.index.KnownIndexes. What the cache has is for the build to replace."""
        return self._local is not None and self._local.forget(layer, reason)

    def distrust(self) -> None:
        """One of this machine's indexes was wrong: they are written from now on, and not read."""
        self._trusted = False

    def unpacked(self, diff_id: str) -> Path | None:
        """See builder.layer.index.KnownIndexes."""
        return self._local.unpacked(diff_id) if self._local is not None else None

    def wants(self, layer: Layer) -> bool:
        """Whether the index of `layer` is to be written into the cache, as far as is known; see Observer."""
        return self._write and layer.descriptor.size >= _SMALL and layer.diff_id not in self._there

    def saw(self, layer: Layer, changes: list[Change]) -> None:
        """Write the index of `layer` into the cache; see Observer."""
        with self._lock:
            if not self._write or layer.diff_id in self._there:
                return
            self._there.add(layer.diff_id)
            if self._writers is None:
                self._waiting.append((layer, changes))
            else:
                self._writers.submit(self._keep, layer, changes)

    def finish(self, *, cancel: bool = False) -> None:
        """Wait until everything is written; with `cancel`, for what is being written only."""
        with self._lock:
            writers, self._writers = self._writers, None
            waiting, self._waiting = self._waiting, []
            self._write = False
        if writers is not None:
            writers.shutdown(wait=True, cancel_futures=cancel)
        for layer, changes in () if cancel else waiting:
            self._keep(layer, changes)

    def _keep(self, layer: Layer, changes: list[Change]) -> None:
        assert self._cache is not None
        name = f"{INDEX_OF} {layer.descriptor.digest}"
        try:
            entry = self._cache.get(key_of(layer))
            if entry is not None:
                with contextlib.suppress(BuildError, OSError):
                    _read(entry, layer, self._work_dir)
                    return
            made = _entry(layer, changes, self._work_dir)
        except (BuildError, OSError) as error:
            self._listener.tell(Message(f"{name} is not kept in {self._cache}: {error}"))
            return
        self._cache.put(key_of(layer), made, name)


def key_of(layer: Layer) -> CacheKey:
    """The key of the index of `layer`."""
    return key_of_index(layer.diff_id)


def key_of_index(diff_id: str) -> CacheKey:
    """The key of the index of the layer with `diff_id`."""
    return CacheKey.of("layer index", _FORM, diff_id)


def _entry(layer: Layer, changes: Iterable[Change], work_dir: Path) -> Entry:
    from builder.layer.index_json import encode_index  # a build that is cached writes and reads none
    from builder.layer.writer import write_layer

    data = json.dumps({"diff_id": layer.diff_id}).encode() + b"\n" + encode_index(changes)
    file = File(_FILE, FileType.FILE, size=len(data), content=BytesContent(data))
    scratch = Path(tempfile.mkdtemp(prefix="index-", dir=work_dir))  # it is sent from there
    created = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    # Made on nothing, as what is in no build's record: see builder.cache.inventory.
    return Entry(write_layer([file], scratch, LayerFormat("oci", "zstd")), created, below="")


def _read(entry: Entry, layer: Layer, work_dir: Path) -> list[Change]:
    """The changes of `layer` by `entry`. Raises BuildError where that is not what it is, OSError."""
    from builder.layer.index import read_index

    found = entry.layer
    if found.descriptor.size > _LARGEST:
        raise ImageError("it is too large")
    with tempfile.TemporaryDirectory(prefix="index-", dir=work_dir) as spool, found.blob.open() as stream:
        compression = layer_compression(found.descriptor.media_type)
        files = read_index(stream, compression=compression, diff_id=found.diff_id, spool=Path(spool))
        for file in files:
            if isinstance(file, File) and file.path == _FILE and file.content is not None and file.size <= _LARGEST:
                with file.content.open() as content:
                    return _parsed(content.read(), layer)
    raise ImageError(f"it has no {_FILE}")


def _parsed(data: bytes, layer: Layer) -> list[Change]:
    from builder.layer.index_json import decode_index

    head, _, text = data.partition(b"\n")
    try:
        if json.loads(head)["diff_id"] != layer.diff_id:
            raise ImageError("it is another layer's")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ImageError(f"it does not say whose it is: {error}") from error
    return decode_index(text)
