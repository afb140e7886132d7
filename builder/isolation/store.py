"""Unpacked layers, each unpacked once whichever root needs it first."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from builder.events import Listener, Silent, worked
from builder.isolation.owners import Owners
from builder.isolation.removal import remove_tree
from builder.isolation.syscalls import release_free_memory
from builder.oci import media_types
from builder.oci.blobs import FileBlob
from builder.oci.image import Layer
from builder.oci.stoppable import unwrapped
from builder.rootfs.entry import Change, Entry, FileType

if TYPE_CHECKING:
    from builder.layer.target import NotApplied, SetOwner
    from builder.layer.unpack import Unpacked

WORKERS = 4  # decompression and digests run without the GIL; more would wait for the disk

# A mode that no layer gives its root directory: when it is still there, the layer has no entry for the root.
_NO_ROOT_ENTRY = 0o7711


@dataclass(frozen=True, slots=True)
class StoredLayer:
    """A layer as a lower directory of an overlay; see `builder.layer.unpack.Unpacked` for `implied`.

    `not_applied` are (path, what), one for each kind of thing that this machine did not allow to be made.
    """

    path: Path
    implied: tuple[str, ...]
    not_applied: tuple[tuple[str, str], ...] = ()


class NotKept(Exception):
    """This layer's directory must not outlive the build: something about its files is known to this process only."""


class KeptLayers(Protocol):
    """Unpacked layers that outlive the build, and are shared with other builds. Thread-safe."""

    def get_or_make(self, diff_id: str, fill: Callable[[Path], StoredLayer]) -> StoredLayer | None:
        """The layer's directory, made by `fill` (which gets the path of a new one) unless it is there already.

        It stays as it is until the build ends, and is never written to. None when it cannot be kept: the disk says
        no, or `fill` raised NotKept. Other errors of `fill` are raised.
        """
        ...


class Observer(Protocol):
    """Who wants to know what is in layers that are unpacked."""

    def wants(self, layer: Layer) -> bool:
        """Whether it does for this one."""
        ...

    def saw(self, layer: Layer, changes: list[Change]) -> None:
        """The changes of `layer`, with contents of USER_FILES."""
        ...


@contextmanager
def observed(layer: Layer, observer: Observer | None, *, made_here: bool) -> Iterator[list[Change] | None]:
    """Where the changes of `layer` are to be noted while it is unpacked, for an `observer` who wants them.

    None where there is none, and for a layer that a step of this build made.
    """
    if observer is None or made_here or not observer.wants(layer):
        yield None
        return
    seen: list[Change] = []
    yield seen
    observer.saw(layer, seen)


class LayerStore:
    """Layers in overlay form, by diff_id, in `work_dir`/layers; those that can be `kept` are there instead.

    May be used from any thread.
    """

    def __init__(
        self,
        work_dir: Path,
        overlay_xattr: Literal["trusted", "user"],
        owners: Owners,
        not_applied: NotApplied,
        kept: KeptLayers | None = None,
        listener: Listener | None = None,
        observer: Observer | None = None,
    ) -> None:
        self._work_dir = work_dir
        self._path = work_dir / "layers"
        self._xattr = overlay_xattr
        self._owners = owners
        self._not_applied = not_applied
        self._kept = kept
        self._listener = listener or Silent()
        self._observer = observer
        self._lock = threading.Lock()
        self._layers: dict[str, Future[StoredLayer]] = {}
        self._path.mkdir(parents=True, exist_ok=True)

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
            # Buffers came out of arenas of threads that are gone; the step that follows needs room of its own.
            release_free_memory()
        return [future.result() for future in futures]

    def _unpack_one(self, layer: Layer, future: Future[StoredLayer]) -> None:
        try:
            stored = None
            if self._kept is not None and not self.is_of_this_build(layer):
                stored = self._kept.get_or_make(layer.diff_id, lambda into: self._fill(layer, into))
            if stored is None:
                stored = self._unpack_here(layer)
            for path, what in stored.not_applied:
                self._not_applied(Entry(path, FileType.FILE), what)
            future.set_result(stored)
        except BaseException as error:
            with self._lock:
                del self._layers[layer.diff_id]
            future.set_exception(error)

    def is_of_this_build(self, layer: Layer) -> bool:
        """Whether a step made it just now: nobody knows that any other build will want it."""
        blob = unwrapped(layer.blob)
        return isinstance(blob, FileBlob) and blob.path.is_relative_to(self._work_dir)

    def _unpack_here(self, layer: Layer) -> StoredLayer:
        name = layer.diff_id.partition(":")[2]
        partial = self._path / (name + ".partial")
        try:
            partial.mkdir()
            stored = self._unpack_into(partial, layer, self._owners.set)
            os.rename(partial, self._path / name)
            return replace(stored, path=self._path / name)
        except BaseException:
            remove_tree(partial)
            raise

    def _fill(self, layer: Layer, into: Path) -> StoredLayer:
        """Raises NotKept where an owner could not be noted in the file itself."""

        def set_owner(parent: int, name: str, entry: Entry) -> None:
            if entry.type not in (FileType.FILE, FileType.DIRECTORY) and (entry.uid, entry.gid) != (0, 0):
                raise NotKept
            if not self._owners.set(parent, name, entry):
                raise NotKept

        return self._unpack_into(into, layer, set_owner)

    def _unpack_into(self, into: Path, layer: Layer, set_owner: SetOwner) -> StoredLayer:
        missed: dict[str, str] = {}

        def not_applied(entry: Entry, what: str) -> None:
            missed.setdefault(what, entry.path)

        os.chmod(into, _NO_ROOT_ENTRY)
        owner = set_owner if self._owners.recorded else None
        with (
            observed(layer, self._observer, made_here=self.is_of_this_build(layer)) as seen,
            worked(self._listener, "unpack", layer.descriptor.digest),
        ):
            implied = unpack_layer(layer, into, "overlay", self._xattr, owner, not_applied, seen).implied
        if os.stat(into).st_mode & 0o7777 == _NO_ROOT_ENTRY:
            os.chmod(into, 0o755)
            implied = ("", *implied)
        return StoredLayer(into, implied, tuple((path, what) for what, path in missed.items()))


def unpack_layer(
    layer: Layer,
    into: Path,
    form: Literal["plain", "overlay"],
    overlay_xattr: Literal["trusted", "user"],
    set_owner: SetOwner | None,
    not_applied: NotApplied,
    seen: list[Change] | None = None,
) -> Unpacked:
    """Unpack `layer` and check its digests; `seen` gets its changes.

    Raises ImageError when it is not what it claims to be.
    """
    from builder.layer.opened import opened  # a build that is cached unpacks nothing
    from builder.layer.unpack import unpack

    with opened(layer) as stream:
        return unpack(
            stream,
            into,
            compression=media_types.layer_compression(layer.descriptor.media_type),
            diff_id=layer.diff_id,
            form=form,
            overlay_xattr=overlay_xattr,
            set_owner=set_owner,
            not_applied=not_applied,
            seen=seen,
        )
