"""Writes files, directories and links below one directory, and cannot be led out of it.

Every path is walked from the root's descriptor with O_NOFOLLOW, component by component: a symbolic link that was
written before is never followed, whatever it points to. Needs no privilege: owners are the writer's own.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from builder.errors import ContextError
from context_sources.file_program import CREATE_FILE, OPEN_DIRECTORY

if TYPE_CHECKING:
    from context_sources.second_writer import SecondWriter, SmallFile

KEPT_DESCRIPTORS = 64
MANY_FILES = 1000  # from here on a second process is worth its start
SPECIAL_BITS = 0o7000
NO_NAMES = frozenset((b"", b".", b".."))


def components(path: bytes, name: str) -> list[bytes]:
    """The parts of a relative path, `.` and empty ones dropped. Raises ContextError for what leads elsewhere."""
    if path.startswith(b"/"):
        raise ContextError(
            f"{name}: the path {os.fsdecode(path)} is absolute",
            "make the archive with relative paths, e.g. tar -C DIRECTORY -czf context.tar.gz .",
        )
    parts = [part for part in path.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise ContextError(
            f"{name}: the path {os.fsdecode(path)} leads out of the context",
            "make the archive inside the context's directory, e.g. tar -C DIRECTORY -czf context.tar.gz .",
        )
    return parts


def bits_taken_from_new_files(directory: int) -> int:
    """Which permissions files may not get when they are made below `directory`: they have to be given afterwards.

    That is the umask, read without changing it, since it belongs to the whole process. A default ACL (acl(5)), which
    new directories inherit, takes its place and may take any bit.
    """
    try:
        os.getxattr(directory, "system.posix_acl_default")
        return 0o777
    except OSError as error:
        if error.errno not in (errno.ENODATA, errno.ENOTSUP):
            return 0o777
    try:
        with open("/proc/self/status") as status:
            return next((int(line.split()[1], 8) for line in status if line.startswith("Umask:")), 0o777)
    except OSError:
        return 0o777


class TreeWriter:
    """A tree being written below `root`. Not for use by several threads.

    Directories get their mode and time in `finish`, since writing in them needs and changes these. `name` is how
    errors call the origin. Raises ContextError for hostile paths and for what the system refuses.

    Of many files the small ones are made by a second process, in order, and only such of which nothing else depends:
    whatever needs them there, or could take their names, waits for it first (`settle`). It is started after `many`
    files, on a machine with more than one processor.
    """

    def __init__(self, root: Path, name: str, many: int = MANY_FILES) -> None:
        self._name = name
        self._root = os.open(root, OPEN_DIRECTORY)
        self._changed_by_system = SPECIAL_BITS | bits_taken_from_new_files(self._root)
        self._descriptors: OrderedDict[bytes, int] = OrderedDict()
        # What stood before the last file's name, and the descriptor of that directory; None when it may be closed.
        self._last_above: bytes | None = None
        self._last_parent = -1
        self._directories: dict[bytes, tuple[int, int]] = {}
        self._files_until_second = many if len(os.sched_getaffinity(0)) > 1 else -1
        self._second: SecondWriter | None = None

    def __enter__(self) -> TreeWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._second is not None:
            self._second.close()
        for descriptor in self._descriptors.values():
            os.close(descriptor)
        os.close(self._root)
        if isinstance(error, OSError):
            raise self._refused(error) from error

    def _refused(self, error: OSError) -> ContextError:
        where = f" at {os.fsdecode(error.filename)}" if error.filename else ""
        hint = ""
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            hint = "give the work directory more space, or keep files out of the context"
        return ContextError(f"{self._name}: {error.strerror}{where} while writing the context", hint)

    def _parent(self, parts: list[bytes]) -> int:
        """The descriptor of the directory that holds the last of `parts`; missing ones are made."""
        if len(parts) == 1:
            return self._root
        path = b"/".join(parts[:-1])
        known = self._descriptors.get(path)
        if known is not None:
            self._descriptors.move_to_end(path)
            return known
        above = self._parent(parts[:-1])
        last = parts[-2]
        try:
            descriptor = os.open(last, OPEN_DIRECTORY, dir_fd=above)
        except FileNotFoundError:
            if self._settle_for(path):
                return self._parent(parts)
            os.mkdir(last, 0o755, dir_fd=above)
            self._directories[path] = (0o755, -1)
            descriptor = os.open(last, OPEN_DIRECTORY, dir_fd=above)
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENOTDIR):
                raise
            raise ContextError(
                f"{self._name}: {os.fsdecode(b'/'.join(parts))} lies below {os.fsdecode(path)}, which is no directory",
                "an archive may not write through its own links: make it anew from the directory",
            ) from error
        self._descriptors[path] = descriptor
        if len(self._descriptors) > KEPT_DESCRIPTORS:
            oldest, closing = self._descriptors.popitem(last=False)
            if oldest == path:  # cannot happen while the limit is above 1
                self._descriptors[path] = closing
            else:
                self._last_above = None
                os.close(closing)
        return descriptor

    def directory(self, path: bytes, mode: int, mtime: int) -> None:
        """A directory; one that is there keeps its contents. `mtime` -1 leaves the time alone."""
        parts = components(path, self._name)
        if not parts:
            return  # the context's own root is Limpet's
        parent, last = self._parent(parts), parts[-1]
        self._settle_for(b"/".join(parts))
        try:
            os.mkdir(last, 0o700, dir_fd=parent)
        except FileExistsError:
            if not stat.S_ISDIR(os.stat(last, dir_fd=parent, follow_symlinks=False).st_mode):
                os.unlink(last, dir_fd=parent)
                os.mkdir(last, 0o700, dir_fd=parent)
        self._directories[b"/".join(parts)] = (mode, mtime)

    def file(self, path: bytes, mode: int, mtime: int, pieces: Iterable[bytes | memoryview]) -> None:
        """A regular file, in place of what has its name. Small ones come in one piece."""
        if self._second is not None and type(pieces) is tuple:
            parent, last = self._known_place(path)
            if parent >= 0:
                directory = path.rpartition(b"/")[0].removeprefix(b"./")
                self._make(self._second.give((directory, last, mode, mtime, b"".join(pieces))))
                return
        self._files_until_second -= 1
        if not self._files_until_second:
            self._start_second()
        descriptor = self._create(path, mode)
        try:
            for piece in pieces:
                written = os.write(descriptor, piece)
                while written < len(piece):
                    written += os.write(descriptor, memoryview(piece)[written:])
            os.utime(descriptor, ns=(mtime, mtime))
        finally:
            os.close(descriptor)

    def _start_second(self) -> None:
        from context_sources.second_writer import SecondWriter  # few archives have that many files

        try:
            self._second = SecondWriter(self._root, self._changed_by_system)
        except OSError:
            pass  # one process does it, too

    def settle(self) -> None:
        """Return when all files that were written are there."""
        if self._second is not None:
            self._make(self._second.settle())

    def _settle_for(self, path: bytes) -> bool:
        """Wait for the file `path`, if it is under way; whether it was."""
        if self._second is None or not self._second.is_under_way(path):
            return False
        self.settle()
        return True

    def _make(self, left: list[SmallFile]) -> None:
        """Make what the second process did not: from now on all is made here, and errors are told."""
        if left and self._second is not None:
            self._second.close()
            self._second = None
        for directory, name, mode, mtime, content in left:
            self.file(directory + b"/" + name, mode, mtime, (content,))

    def sparse_file(
        self, path: bytes, mode: int, mtime: int, size: int, parts: Iterable[tuple[int, Iterable[bytes | memoryview]]]
    ) -> None:
        """A file of `size` bytes with holes but for `parts`: (offset, pieces)."""
        descriptor = self._create(path, mode)
        try:
            os.ftruncate(descriptor, size)
            for offset, pieces in parts:
                for piece in pieces:
                    at = 0
                    while at < len(piece):
                        at += os.pwrite(descriptor, memoryview(piece)[at:], offset + at)
                    offset += len(piece)
            os.utime(descriptor, ns=(mtime, mtime))
        finally:
            os.close(descriptor)

    def _create(self, path: bytes, mode: int) -> int:
        if self._second is not None:
            self._settle_for(b"/".join(components(path, self._name)))
        parent, last = self._known_place(path)
        if parent < 0:
            parts = components(path, self._name)
            if not parts:
                raise ContextError(f"{self._name}: a file is called {os.fsdecode(path) or 'nothing'}")
            parent, last = self._parent(parts), parts[-1]
        try:
            descriptor = os.open(last, CREATE_FILE, mode & ~SPECIAL_BITS, dir_fd=parent)
        except FileExistsError:
            self._remove(components(path, self._name), parent)
            descriptor = os.open(last, CREATE_FILE, mode & ~SPECIAL_BITS, dir_fd=parent)
        if mode & self._changed_by_system:
            os.fchmod(descriptor, mode)
        return descriptor

    def _known_place(self, path: bytes) -> tuple[int, bytes]:
        """Descriptor of the directory and name in it, without taking `path` apart; -1 where that has to be done.

        A directory whose descriptor is kept is known by its components: a path that begins just so is a normal one.
        """
        above, _, last = path.rpartition(b"/")
        if above == self._last_above and last not in NO_NAMES:
            return self._last_parent, last
        directory = above.removeprefix(b"./")
        known = self._descriptors.get(directory)
        if known is None or last in NO_NAMES:
            return -1, b""
        self._descriptors.move_to_end(directory)
        self._last_above, self._last_parent = above, known
        return known, last

    def symlink(self, path: bytes, target: bytes, mtime: int) -> None:
        """A symbolic link, `target` as it is: nothing here follows it."""
        parts = components(path, self._name)
        if not parts or not target:
            raise ContextError(f"{self._name}: the link {os.fsdecode(path)} -> {os.fsdecode(target)} has no name")
        parent, last = self._parent(parts), parts[-1]
        self._settle_for(b"/".join(parts))
        try:
            os.symlink(target, last, dir_fd=parent)
        except FileExistsError:
            self._remove(parts, parent)
            os.symlink(target, last, dir_fd=parent)
        os.utime(last, ns=(mtime, mtime), dir_fd=parent, follow_symlinks=False)

    def hardlink(self, path: bytes, target: bytes) -> None:
        """One more name of `target`, a file or link of this tree."""
        parts, origin = components(path, self._name), components(target, self._name)
        if parts == origin:
            return
        if not parts or not origin:
            raise ContextError(f"{self._name}: the link {os.fsdecode(path)} -> {os.fsdecode(target)} has no name")
        self.settle()
        try:
            source = self._parent(origin)
            kind = os.stat(origin[-1], dir_fd=source, follow_symlinks=False).st_mode
            if not (stat.S_ISREG(kind) or stat.S_ISLNK(kind)):
                raise ContextError(f"{self._name}: {os.fsdecode(path)} is a hard link to a directory")
            source = os.dup(source)  # the next look-up may close it
        except FileNotFoundError as error:
            raise ContextError(
                f"{self._name}: {os.fsdecode(path)} is a hard link to {os.fsdecode(target)}, which is not there"
            ) from error
        try:
            parent, last = self._parent(parts), parts[-1]
            try:
                os.link(origin[-1], last, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
            except FileExistsError:
                self._remove(parts, parent)
                os.link(origin[-1], last, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(source)

    def _remove(self, parts: list[bytes], parent: int) -> None:
        """Make room for another entry of the same name; a directory must be empty."""
        self.settle()
        if not stat.S_ISDIR(os.stat(parts[-1], dir_fd=parent, follow_symlinks=False).st_mode):
            os.unlink(parts[-1], dir_fd=parent)
            return
        try:
            os.rmdir(parts[-1], dir_fd=parent)
        except OSError as error:
            path = os.fsdecode(b"/".join(parts))
            raise ContextError(f"{self._name}: {path} is a directory with contents and something else") from error
        self._forget(parts)

    def _forget(self, parts: list[bytes]) -> None:
        gone, self._last_above = b"/".join(parts), None
        for path in [path for path in self._descriptors if path == gone or path.startswith(gone + b"/")]:
            os.close(self._descriptors.pop(path))
        for path in [path for path in self._directories if path == gone or path.startswith(gone + b"/")]:
            del self._directories[path]

    def remove(self, path: bytes) -> None:
        """Take `path` and all below it away (a whiteout of an image layer). Nothing there is fine."""
        parts = components(path, self._name)
        if not parts:
            return
        self.settle()
        parent = self._parent(parts)
        try:
            kind = os.stat(parts[-1], dir_fd=parent, follow_symlinks=False).st_mode
        except FileNotFoundError:
            return
        if stat.S_ISDIR(kind):
            shutil.rmtree(parts[-1], dir_fd=parent)
            self._forget(parts)
        else:
            os.unlink(parts[-1], dir_fd=parent)

    def names(self, path: bytes) -> list[bytes]:
        """The names in directory `path`, made when it is missing."""
        parts = components(path, self._name)
        self.settle()
        descriptor = self._parent([*parts, b""]) if parts else self._root
        return [os.fsencode(name) for name in os.listdir(descriptor)]

    def is_directory(self, path: bytes) -> bool:
        """Whether `path`, which is there, is a directory and no link to one."""
        parts = components(path, self._name)
        self.settle()
        return stat.S_ISDIR(os.stat(parts[-1], dir_fd=self._parent(parts), follow_symlinks=False).st_mode)

    def finish(self) -> None:
        """Give the directories their modes and times, the deepest first, when all files are there."""
        self.settle()
        for path in sorted(self._directories, key=lambda path: path.count(b"/"), reverse=True):
            mode, mtime = self._directories[path]
            parts = path.split(b"/")
            descriptor = os.open(parts[-1], OPEN_DIRECTORY, dir_fd=self._parent(parts))
            try:
                os.fchmod(descriptor, mode)
                if mtime >= 0:
                    os.utime(descriptor, ns=(mtime, mtime))
            finally:
                os.close(descriptor)
        self._directories.clear()
