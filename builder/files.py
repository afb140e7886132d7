"""The files of images: as a tree to look things up in, or as a directory to mount.

Each form is made when it is first asked for, and kept until the build ends. Nothing is unpacked for a tree:
the layers are streamed once into an index.
"""

from __future__ import annotations

import tempfile
import threading
from contextlib import ExitStack
from pathlib import Path

from builder.errors import BuildError
from builder.isolation import Isolation, Root
from builder.layer.index import read_index
from builder.oci.image import Image, Layer
from builder.oci.media_types import layer_compression
from builder.rootfs.entry import Change
from builder.rootfs.layered import LayeredTree
from builder.rootfs.tree import Tree


class LayerIndexes:
    """The changes of every layer that the build looked into, each read once. Used from any thread."""

    def __init__(self, work_dir: Path) -> None:
        self._work_dir = work_dir
        self._lock = threading.Lock()
        self._locks: dict[str, threading.Lock] = {}
        self._known: dict[str, tuple[list[Change], bool]] = {}

    def add(self, layer: Layer, changes: list[Change]) -> None:
        """Remember what `layer`, which was written in this build, was written from."""
        with self._lock:
            self._known.setdefault(layer.diff_id, (changes, True))

    def changes(self, layer: Layer, *, contents: bool) -> list[Change]:
        """The changes of `layer`; with `contents`, those of regular files can be opened.

        Raises ImageError for damaged layers, RegistryError when it cannot be fetched.
        """
        with self._lock:
            lock = self._locks.setdefault(layer.diff_id, threading.Lock())
        with lock:
            known = self._known.get(layer.diff_id)
            if known and (known[1] or not contents):
                return known[0]
            spool = Path(tempfile.mkdtemp(prefix="contents-", dir=self._work_dir)) if contents else None
            with layer.blob.open() as stream:
                changes = read_index(
                    stream,
                    compression=layer_compression(layer.descriptor.media_type),
                    diff_id=layer.diff_id,
                    spool=spool,
                )
            self._known[layer.diff_id] = (changes, contents)
            return changes

    def tree(self, image: Image, *, contents: bool) -> LayeredTree:
        """The root filesystem of `image`."""
        tree = LayeredTree()
        for layer in image.layers:
            tree = tree.apply(self.changes(layer, contents=contents))
        return tree


class OpenRoots:
    """Every root that the build opened. `close` ends all their processes, also from another thread."""

    def __init__(self, isolation: Isolation) -> None:
        self.isolation = isolation
        self._lock = threading.Lock()
        self._stack = ExitStack()
        self._closed = False

    def open(self, image: Image) -> Root:
        """A root on `image`, open until `close`."""
        context = self.isolation.open_root(image)
        root = context.__enter__()
        with self._lock:
            if not self._closed:
                self._stack.push(context.__exit__)
                return root
        context.__exit__(None, None, None)
        raise BuildError("the build was stopped")

    def close(self) -> None:
        """Close every root; none can be opened afterwards."""
        with self._lock:
            self._closed = True
            stack = self._stack.pop_all()
        stack.close()


class ImageFiles:
    """The files of one finished image (a stage's result, or one that COPY --from names)."""

    def __init__(
        self, image: Image, indexes: LayerIndexes, roots: OpenRoots, root: Root | None = None, tree: Tree | None = None
    ) -> None:
        self.image = image
        self._indexes = indexes
        self._roots = roots
        self._lock = threading.Lock()
        self._root = root
        self._tree = tree

    def tree(self) -> Tree:
        """The files, with contents."""
        with self._lock:
            if self._tree is None:
                # A root that is open anyway, or that other stages unpack as well, costs less than a second copy.
                if self._root is not None:
                    self._tree = self._root.tree()
                else:
                    self._tree = self._indexes.tree(self.image, contents=True)
            return self._tree

    def directory(self) -> Path:
        """The files as a directory of this machine. Raises IsolationError where none can be made."""
        with self._lock:
            if self._root is None:
                self._root = self._roots.open(self.image)
            return self._root.path
