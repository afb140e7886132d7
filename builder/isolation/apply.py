"""Making computed changes on a real directory."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable

from builder.errors import IsolationError
from builder.isolation.contents import write_content
from builder.isolation.directories import open_directory
from builder.isolation.owners import Owners
from builder.isolation.removal import remove_tree
from builder.rootfs.entry import Change, Entry, FileType, Opaque, Whiteout


def apply_changes(changes: Iterable[Change], root: str | os.PathLike[str], owners: Owners) -> None:
    """Let directory `root` become what extracting a layer of `changes` would make of it.

    Directories that are not among the changes keep their mtime. Raises IsolationError when the disk says no.
    """
    changes = list(changes)
    with _Applier(os.fspath(root), owners) as applier:
        # Deletions mean what was there before, wherever they stand.
        for change in changes:
            if not isinstance(change, Entry):
                applier.delete(change)
        for change in changes:
            if isinstance(change, Entry):
                applier.make(change)


class _Applier:
    def __init__(self, root: str, owners: Owners) -> None:
        self._root = root
        self._owners = owners
        self._parent_path: str | None = None
        self._parent = -1
        self._kept: dict[str, int] = {}  # directory -> mtime that it had
        self._made: dict[str, Entry] = {}  # directories whose status comes last

    def __enter__(self) -> _Applier:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                self._finish_directories()
        finally:
            if self._parent >= 0:
                os.close(self._parent)

    def delete(self, change: Whiteout | Opaque) -> None:
        parent, name = self._open_parent(change.path)
        try:
            if isinstance(change, Opaque):
                self._keep(change.path)
                for inside in os.listdir(f"/proc/self/fd/{parent}/{name}" if name else self._root):
                    self._remove(parent, f"{name}/{inside}" if name else inside)
            else:
                self._remove(parent, name)
        except FileNotFoundError:
            pass  # nothing there to hide
        except OSError as error:
            raise _failed(change.path, error) from error

    def make(self, entry: Entry) -> None:
        try:
            if entry.path == "":
                self._made[""] = entry
                return
            parent, name = self._open_parent(entry.path)
            if entry.type is FileType.DIRECTORY:
                self._make_directory(parent, name, entry)
                return
            self._remove(parent, name)
            if _create(self._root, parent, name, entry):
                _set_status(parent, name, entry, self._owners)
        except OSError as error:
            raise _failed(entry.path, error) from error

    def _make_directory(self, parent: int, name: str, entry: Entry) -> None:
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
        except FileExistsError:
            if not stat.S_ISDIR(os.lstat(name, dir_fd=parent).st_mode):
                os.unlink(name, dir_fd=parent)
                os.mkdir(name, 0o700, dir_fd=parent)
        self._made[entry.path] = entry

    def _open_parent(self, path: str) -> tuple[int, str]:
        """A descriptor of the directory that `path` is in, made if missing, and the last name."""
        directory, _, name = path.rpartition("/")
        if directory != self._parent_path:
            if self._parent >= 0:
                os.close(self._parent)
                self._parent, self._parent_path = -1, None
            try:
                self._parent = open_directory(self._root, directory)
            except FileNotFoundError:
                self.make(Entry(directory, FileType.DIRECTORY, 0o755))
                self._open_parent(path)
            self._parent_path = directory
            self._keep(directory)
        return self._parent, name

    def _keep(self, directory: str) -> None:
        if directory not in self._kept:
            self._kept[directory] = os.stat(os.path.join(self._root, directory)).st_mtime_ns

    def _remove(self, parent: int, name: str) -> None:
        try:
            if stat.S_ISDIR(os.lstat(name, dir_fd=parent).st_mode):
                remove_tree(f"/proc/self/fd/{parent}/{name}")
            else:
                os.unlink(name, dir_fd=parent)
        except FileNotFoundError:
            pass

    def _finish_directories(self) -> None:
        for path, entry in sorted(self._made.items(), reverse=True):
            parent, _, name = path.rpartition("/")
            descriptor = open_directory(self._root, parent)
            try:
                _set_status(descriptor, name or ".", entry, self._owners)
            finally:
                os.close(descriptor)
        for path in sorted(self._kept.keys() - self._made.keys(), reverse=True):
            location = os.path.join(self._root, path)
            if os.path.isdir(location):
                os.utime(location, ns=(os.stat(location).st_atime_ns, self._kept[path]))


def _create(root: str, parent: int, name: str, entry: Entry) -> bool:
    """Make what `entry` describes, without status; False when it needs none or cannot be here."""
    match entry.type:
        case FileType.FILE:
            flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC
            descriptor = os.open(name, flags, 0o600, dir_fd=parent)
            try:
                if entry.content is not None:
                    write_content(entry.content, descriptor)
            finally:
                os.close(descriptor)
        case FileType.SYMLINK:
            os.symlink(entry.target, name, dir_fd=parent)
        case FileType.HARDLINK:
            directory, _, other = entry.target.rpartition("/")
            source = open_directory(root, directory)
            try:
                os.link(other, name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
            finally:
                os.close(source)
            return False
        case FileType.FIFO:
            os.mkfifo(name, 0o600, dir_fd=parent)
        case FileType.CHARACTER_DEVICE | FileType.BLOCK_DEVICE:
            kind = stat.S_IFCHR if entry.type is FileType.CHARACTER_DEVICE else stat.S_IFBLK
            try:
                os.mknod(name, kind | 0o600, os.makedev(*entry.device), dir_fd=parent)
            except PermissionError:
                return False  # user namespaces have no device nodes: the layer has it, later steps do not see it
        case FileType.DIRECTORY:
            raise AssertionError("directories are made elsewhere")
    return True


def _set_status(parent: int, name: str, entry: Entry, owners: Owners) -> None:
    """Owner first, since chown clears setuid bits and capabilities; mtime last."""
    owners.set(parent, name, entry)
    if entry.type is not FileType.SYMLINK:
        os.chmod(name, entry.mode, dir_fd=parent)
    for attribute, value in entry.xattrs.items():
        try:
            os.setxattr(f"/proc/self/fd/{parent}/{name}", attribute, value, follow_symlinks=False)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOTSUP):
                raise
            # This file system or user namespace cannot have it; the layer does.
    os.utime(name, ns=(entry.mtime, entry.mtime), dir_fd=parent, follow_symlinks=False)


def _failed(path: str, error: OSError) -> IsolationError:
    return IsolationError(f"cannot write /{path} into the root: {error.strerror}")
