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
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from builder.cache import CacheDamaged
from builder.errors import BuildError
from builder.isolation.directories import open_directory
from builder.oci.image import Image, Layer
from builder.oci.media_types import layer_compression
from builder.oci.stoppable import stoppable
from builder.once import Once
from builder.rootfs.entry import Change, Entry, FileType
from builder.rootfs.layered import LayeredTree
from builder.rootfs.tree import Tree
from builder.rootfs.users import USER_FILES
from builder.stopping import check_wanted

if TYPE_CHECKING:
    from builder.isolation import Isolation, Root
    from builder.layer.index import KnownIndexes

_READERS = 4  # layers read side by side


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
        self._indexes = Once[str, list[Change]]()
        self._whole = Once[str, list[Change]]()  # with all contents
        self._trees = Once[str, Path | None]()

    def changes(self, layer: Layer, *, contents: bool) -> list[Change]:
        """The changes of `layer`. Where it has to be read for them, `contents` says whether its regular files stay on
        the disk. Otherwise only those that users are looked up in do, and opening another one reads the layer once
        for all of them.

        Raises ImageError for damaged layers, RegistryError when it cannot be fetched.
        """
        return self._indexes.get(layer.diff_id, lambda: self._changes(layer, contents=contents))

    def _changes(self, layer: Layer, *, contents: bool) -> list[Change]:
        changes = self._kept.get(layer) if self._kept is not None else None
        if changes is None:
            # What is unpacked already is read there.
            contents = contents and not (self._kept and self._kept.unpacked(layer.diff_id))
            read = self._whole.get(layer.diff_id, lambda: self._read(layer)) if contents else self._look_into(layer)
            if self._kept is not None:
                self._kept.put(layer, read)
            changes = list(read)
        for number, change in enumerate(changes):  # in place, so that there are never two of each
            changes[number] = self._with_content(change, layer, number)
        return changes

    def open(self, layer: Layer, number: int, path: str, size: int) -> BinaryIO:
        """The bytes of the regular file that is change `number` of `layer`, at `path`; `size` in bytes."""
        changes = self._whole.get(layer.diff_id, lambda: self._read(layer))
        change = changes[number] if number < len(changes) else None
        if not isinstance(change, Entry) or (change.path, change.size) != (path, size) or change.content is None:
            # The layer was checked, so it is what is kept of it that is wrong.
            told = self._kept is not None and self._kept.forget(layer, "it is another layer's")
            text = f"the index that is kept of layer {layer.descriptor.digest} is another layer's"
            raise CacheDamaged(text, told=told)
        return change.content.open()

    def unpacked(self, layer: Layer) -> Path | None:
        """See KnownIndexes; None also where the files may lie at other places than the index says."""
        return self._trees.get(layer.diff_id, lambda: self._unpacked(layer))

    def _unpacked(self, layer: Layer) -> Path | None:
        tree = self._kept.unpacked(layer.diff_id) if self._kept is not None else None
        if tree is None or not _has_one_file_for_each_path(self.changes(layer, contents=False)):
            return None
        return tree

    def _look_into(self, layer: Layer) -> list[Change]:
        return self._read(layer, USER_FILES.__contains__)

    def _read(self, layer: Layer, wanted: Callable[[str], bool] = lambda path: True) -> list[Change]:
        from builder.layer.index import read_index  # a build that is cached looks into no layer
        from builder.layer.opened import opened

        spool = Path(tempfile.mkdtemp(prefix="contents-", dir=self._work_dir))
        with opened(layer) as stream:
            return read_index(
                stream,
                compression=layer_compression(layer.descriptor.media_type),
                diff_id=layer.diff_id,
                spool=spool,
                wanted=wanted,
                progress=self._go_on,
            )

    def _go_on(self, done: int) -> None:
        check_wanted(self._stopped)

    def _with_content(self, change: Change, layer: Layer, number: int) -> Change:
        if not isinstance(change, Entry) or change.type is not FileType.FILE or change.content is not None:
            return change
        return replace(change, content=_Later(self, layer, number, change.path, change.size))

    def tree(self, image: Image, *, contents: bool) -> LayeredTree:
        """The root filesystem of `image`."""
        if contents and self._keep is not None:
            self._keep(stoppable(image, self._stopped))
        with ThreadPoolExecutor(_READERS, thread_name_prefix="index") as pool:
            read = list(pool.map(lambda layer: self.changes(layer, contents=contents), image.layers))
        return LayeredTree.of(read)


@dataclass(frozen=True, slots=True)
class _Later:
    """The bytes of a regular file: change `number` of a layer that is read when they are asked for, if it is not
    unpacked already."""

    indexes: LayerIndexes
    layer: Layer
    number: int
    path: str
    size: int

    def open(self) -> BinaryIO:
        return self._open_unpacked() or self.indexes.open(self.layer, self.number, self.path, self.size)

    def _open_unpacked(self) -> BinaryIO | None:
        """The unpacked file, reached by no symlink; None where it is not that plain, or not for us to read."""
        tree = self.indexes.unpacked(self.layer)
        if tree is None:
            return None
        parent, _, name = self.path.rpartition("/")
        try:
            directory = open_directory(tree, parent)
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

    def __init__(self, isolation: Isolation, stopped: Callable[[], bool] = lambda: False) -> None:
        """What is being unpacked when `stopped` becomes true is not unpacked to its end."""
        self.isolation = isolation
        self._stopped = stopped
        self._lock = threading.Lock()
        self._stack = ExitStack()
        self._closed = False

    def open(self, image: Image) -> Root:
        """A root on `image`, open until `close`."""
        context = self.isolation.open_root(stoppable(image, self._stopped))
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
