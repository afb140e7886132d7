"""The store as a whole."""

from __future__ import annotations

import threading
from pathlib import Path

from builder.events import Listener, Message
from builder.oci.manifest import ResolvedImage
from builder.store.blobs import StoredBlobs
from builder.store.entries import Entries, name_of
from builder.store.images import StoredImages
from builder.store.indexes import StoredIndexes
from builder.store.layers import KIND as LAYERS
from builder.store.layers import StoredLayers
from builder.store.prune import prune, remove_leftovers


class Store:
    """The store in the existing directory `directory`; a context manager, which lets go of the entries at its end.

    `ttl` (seconds) is how long a tag's image may be used where no registry can be asked. With a `size` (bytes), what
    was unused longest is removed at the end until no more than that is left. What fails is told, and done without.
    """

    def __init__(self, directory: Path, listener: Listener, *, ttl: float, size: int = 0) -> None:
        self.directory = directory
        self._listener = listener
        self._size = size
        self._entries = Entries(directory, listener)
        self.images = StoredImages(self._entries, ttl)
        self.blobs = StoredBlobs(self._entries)
        self.indexes = StoredIndexes(self._entries, self._unpacked)
        self._lock = threading.Lock()
        self._layers: dict[str, StoredLayers] = {}

    @property
    def writable(self) -> bool:
        """Whether anything can be kept, as far as is known."""
        return self._entries.writable

    def layers(self, form: str) -> StoredLayers:
        """The unpacked layers of one form; see builder.store.layers."""
        with self._lock:
            return self._layers.setdefault(form, StoredLayers(self._entries, form))

    def _unpacked(self, diff_id: str) -> Path | None:
        for kind in sorted(self._entries.kinds()):
            if kind.startswith(f"{LAYERS}-"):
                stored = self.layers(kind.removeprefix(f"{LAYERS}-")).get(diff_id)
                if stored is not None:
                    return stored.path
        return None

    def forget(self, image: ResolvedImage) -> None:
        """Remove the image with all its layers; what other builds use stays with them."""
        digests = {image.digest, image.index_digest} - {""}
        for layer in image.image.layers:
            digests |= {layer.descriptor.digest, layer.diff_id}
        self._entries.forget(tuple(map(name_of, sorted(digests))))

    def stop(self) -> None:
        """Make whoever waits for another build raise."""
        self._entries.stop()

    def resume(self) -> None:
        """Waiting is possible again: the build is done once more."""
        self._entries.resume()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self._entries.close()
        if self.writable:
            self._prune()

    def _prune(self) -> None:
        """Remove what killed builds left, and with a size what was unused longest."""
        try:
            if not self._size:
                remove_leftovers(self.directory)
                return
            pruned = prune(self.directory, size=self._size)
        except OSError as error:
            self._listener.tell(Message(f"the store {self.directory} cannot be pruned: {error}", "warning"))
            return
        if pruned.removed:
            text = f"removed {pruned.removed} entries ({pruned.freed} bytes) from the store {self.directory}"
            self._listener.tell(Message(text))
        if pruned.left > self._size:
            text = f"the store {self.directory} has {pruned.left} bytes in use, and should have {self._size}"
            self._listener.tell(Message(text, "warning"))


def open_store(directory: Path, listener: Listener, *, create: bool, ttl: float, size: int = 0) -> Store | None:
    """The store in `directory`, None if there is no such directory. With `create` it is made, if that is possible."""
    if not directory.is_dir():
        if not create:
            return None
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            text = f"the store {directory} cannot be made ({error.strerror}): building without one"
            listener.tell(Message(text, "warning"))
            return None
    return Store(directory, listener, ttl=ttl, size=size)
