"""Unpacked layers, each unpacked once whichever root needs it first."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from builder.isolation.owners import Owners
from builder.isolation.removal import remove_tree
from builder.layer.opened import opened
from builder.layer.target import NotApplied
from builder.layer.unpack import Unpacked, unpack
from builder.oci import media_types
from builder.oci.image import Layer

WORKERS = 4  # decompression and digests run without the GIL; more would wait for the disk

# A mode that no layer gives its root directory: when it is still there, the layer has no entry for the root.
_NO_ROOT_ENTRY = 0o7711


@dataclass(frozen=True, slots=True)
class StoredLayer:
    """A layer as a lower directory of an overlay; see `builder.layer.unpack.Unpacked` for `implied`."""

    path: Path
    implied: tuple[str, ...]


class LayerStore:
    """The layers of directory `path` in overlay form, by diff_id. May be used from any thread."""

    def __init__(
        self, path: Path, overlay_xattr: Literal["trusted", "user"], owners: Owners, not_applied: NotApplied
    ) -> None:
        self._path = path
        self._xattr = overlay_xattr
        self._owners = owners
        self._not_applied = not_applied
        self._lock = threading.Lock()
        self._layers: dict[str, Future[StoredLayer]] = {}
        path.mkdir(parents=True, exist_ok=True)

    def unpack(self, layers: Sequence[Layer]) -> list[StoredLayer]:
        """The directories of `layers`, in their order; those that are not here yet are unpacked side by side.

        Raises what `builder.layer.unpack.unpack` raises; nothing is kept of a layer that failed.
        """
        mine: list[tuple[Layer, Future[StoredLayer]]] = []
        futures = []
        with self._lock:
            for layer in layers:
                future = self._layers.get(layer.diff_id)
                if future is None:
                    future = self._layers[layer.diff_id] = Future()
                    mine.append((layer, future))
                futures.append(future)
        if mine:
            with ThreadPoolExecutor(min(WORKERS, len(mine)), "unpack") as pool:
                for layer, future in mine:
                    pool.submit(self._unpack_one, layer, future)
        return [future.result() for future in futures]

    def _unpack_one(self, layer: Layer, future: Future[StoredLayer]) -> None:
        name = layer.diff_id.partition(":")[2]
        partial = self._path / (name + ".partial")
        try:
            partial.mkdir()
            os.chmod(partial, _NO_ROOT_ENTRY)
            implied = unpack_layer(layer, partial, "overlay", self._xattr, self._owners, self._not_applied).implied
            if os.stat(partial).st_mode & 0o7777 == _NO_ROOT_ENTRY:
                os.chmod(partial, 0o755)
                implied = ("", *implied)
            os.rename(partial, self._path / name)
            future.set_result(StoredLayer(self._path / name, implied))
        except BaseException as error:
            with self._lock:
                del self._layers[layer.diff_id]
            remove_tree(partial)
            future.set_exception(error)


def unpack_layer(
    layer: Layer,
    into: Path,
    form: Literal["plain", "overlay"],
    overlay_xattr: Literal["trusted", "user"],
    owners: Owners,
    not_applied: NotApplied,
) -> Unpacked:
    """Unpack `layer` and check its digests. Raises ImageError when it is not what it claims to be."""
    with opened(layer) as stream:
        return unpack(
            stream,
            into,
            compression=media_types.layer_compression(layer.descriptor.media_type),
            diff_id=layer.diff_id,
            form=form,
            overlay_xattr=overlay_xattr,
            set_owner=owners.set if owners.recorded else None,
            not_applied=not_applied,
        )
