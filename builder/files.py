"""The files of images: as a tree to look things up in, or as a directory to mount.

Each form is made when it is first asked for, and kept until the build ends. Nothing is unpacked for a tree:
the layers are streamed once into an index.
"""

from __future__ import annotations

import os
import stat
import tempfile
import threading
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Protocol

from builder.errors import BuildError, ImageError
from builder.isolation import Isolation, Root
from builder.isolation.directories import open_directory
from builder.layer.index import read_index
from builder.layer.opened import opened
from builder.oci.image import Image, Layer
from builder.oci.media_types import layer_compression
from builder.rootfs.entry import Change, Entry, FileType
from builder.rootfs.layered import LayeredTree
from builder.rootfs.tree import Tree
from builder.rootfs.users import USER_FILES


class KnownIndexes(Protocol):
    """Indexes of layers that outlive the build. No method raises. Thread-safe."""

    def get(self, diff_id: str) -> list[Change] | None:
        """The changes of a layer, with contents of USER_FILES only."""
        ...

    def put(self, diff_id: str, changes: Iterable[Change]) -> None:
        """Keep the changes of a layer, which have at least the contents of USER_FILES."""
        ...

    def unpacked(self, diff_id: str) -> Path | None:
        """The layer by itself as a directory that stays as it is until the build ends, None if there is none."""
        ...


class LayerIndexes:
    """The changes of every layer that the build looked into, each read once. Used from any thread."""

    def __init__(
        self,
        work_dir: Path,
        kept: KnownIndexes | None = None,
        stopped: Callable[[], bool] = lambda: False,
        keep: Callable[[Image], object] | None = None,
    ) -> None:
        """What is being read when `stopped` becomes true is not read to its end.

        `keep` unpacks an image where `kept` finds its layers: what is read with contents is better read from there.
        """
        self._work_dir = work_dir
        self._keep = keep if kept is not None else None
        self._stopped = stopped
        self._kept = kept
        self._lock = threading.Lock()
        self._locks: dict[str, threading.Lock] = {}
        self._known: dict[str, tuple[list[Change], bool]] = {}

    def changes(self, layer: Layer, *, contents: bool) -> list[Change]:
        """The changes of `layer`. With `contents`, regular files lie on the disk; without, only those that users are
        looked up in do, and opening another one reads the layer once more.

        Raises ImageError for damaged layers, RegistryError when it cannot be fetched.
        """
        with self._lock:
            lock = self._locks.setdefault(layer.diff_id, threading.Lock())
        with lock:
            known = self._known.get(layer.diff_id)
            if known and (known[1] or not contents):
                return known[0]
            before = self._known_before(layer, contents=contents)
            if before is not None:
                changes = before
            else:
                changes = self._read(layer, (lambda path: True) if contents else USER_FILES.__contains__)
                if self._kept:
                    self._kept.put(layer.diff_id, changes)
            self._known[layer.diff_id] = (changes, contents)
            return changes

    def open(self, layer: Layer, path: str) -> BinaryIO:
        """The bytes of the regular file that `layer` has at `path`."""
        for change in reversed(self._read(layer, path.__eq__)):
            if isinstance(change, Entry) and change.path == path and not isinstance(change.content, _Later):
                assert change.content is not None
                return change.content.open()
        raise ImageError(f"{layer.descriptor.digest} has no file {path}")

    def _known_before(self, layer: Layer, *, contents: bool) -> list[Change] | None:
        """The changes of `layer`, from the index that is kept of it; None if that is not enough."""
        tree = self._kept.unpacked(layer.diff_id) if self._kept and contents else None
        if self._kept is None or (contents and tree is None):
            return None
        changes = self._kept.get(layer.diff_id)
        if changes is None and tree is not None:
            changes = self._read(layer, USER_FILES.__contains__)
            self._kept.put(layer.diff_id, changes)
        if changes is None or (tree is not None and not _has_one_file_for_each_path(changes)):
            return None
        return [self._with_content(change, layer, tree) for change in changes]

    def _read(self, layer: Layer, wanted: Callable[[str], bool]) -> list[Change]:
        spool = Path(tempfile.mkdtemp(prefix="contents-", dir=self._work_dir))
        with opened(layer) as stream:
            changes = read_index(
                stream,
                compression=layer_compression(layer.descriptor.media_type),
                diff_id=layer.diff_id,
                spool=spool,
                wanted=wanted,
                progress=self._go_on,
            )
        return [self._with_content(change, layer) for change in changes]

    def _go_on(self, done: int) -> None:
        if self._stopped():
            raise BuildError("the build was stopped")

    def _with_content(self, change: Change, layer: Layer, tree: Path | None = None) -> Change:
        if not isinstance(change, Entry) or change.type is not FileType.FILE:
            return change
        if change.content is None or (tree is not None and isinstance(change.content, _Later)):
            return replace(change, content=_Later(self, layer, change.path, change.size, tree))
        return change

    def tree(self, image: Image, *, contents: bool) -> LayeredTree:
        """The root filesystem of `image`."""
        if contents and self._keep is not None:
            self._keep(image)
        tree = LayeredTree()
        for layer in image.layers:
            tree = tree.apply(self.changes(layer, contents=contents))
        return tree


@dataclass(frozen=True, slots=True)
class _Later:
    """The bytes of a regular file, in a layer that is read when they are asked for, or as it is unpacked at `tree`."""

    indexes: LayerIndexes
    layer: Layer
    path: str
    size: int
    tree: Path | None = None

    def open(self) -> BinaryIO:
        return self._open_unpacked() or self.indexes.open(self.layer, self.path)

    def _open_unpacked(self) -> BinaryIO | None:
        """The file in `tree`, reached by no symlink; None where it is not that plain, or not for us to read."""
        if self.tree is None:
            return None
        parent, _, name = self.path.rpartition("/")
        try:
            directory = open_directory(self.tree, parent)
            try:
                file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
            finally:
                os.close(directory)
        except OSError:
            return None
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode) or status.st_size != self.size:
            os.close(file)
            return None
        return open(file, "rb", buffering=0)


def _has_one_file_for_each_path(changes: Iterable[Change]) -> bool:
    """Whether the layer, unpacked, has each of its files where the index says: none is written twice."""
    paths: set[str] = set()
    links: set[str] = set()
    directories: set[str] = set()
    for change in changes:
        if not isinstance(change, Entry) or change.type is FileType.DIRECTORY:
            continue
        if change.path in paths:
            return False
        paths.add(change.path)
        if change.type is FileType.SYMLINK:
            links.add(change.path)
        directory = change.path.rpartition("/")[0]
        while directory and directory not in directories:
            directories.add(directory)
            directory = directory.rpartition("/")[0]
    return not directories & links


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
    """The files of one finished image: a stage's result, or one that COPY --from names. Thread-safe.

    `image` and `make_tree` are called when they are needed, and once.
    """

    def __init__(
        self,
        image: Callable[[], Image],
        roots: OpenRoots,
        make_tree: Callable[[], Tree],
        root: Root | None = None,
    ) -> None:
        self._image = image
        self._roots = roots
        self._make_tree = make_tree
        self._lock = threading.Lock()
        self._root = root
        self._tree: Tree | None = None

    def tree(self) -> Tree:
        """The files, with contents."""
        with self._lock:
            if self._tree is None:
                self._tree = self._make_tree()
            return self._tree

    def directory(self) -> Path:
        """The files as a directory of this machine. Raises IsolationError where none can be made."""
        with self._lock:
            if self._root is None:
                self._root = self._roots.open(self._image())
            return self._root.path
