"""Mount points that an image lacks: made before a process runs, removed afterwards, so that no layer has them."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from builder.errors import IsolationError
from builder.isolation.directories import open_directory
from builder.rootfs.directory import DirectoryTree
from builder.rootfs.entry import Entry
from builder.rootfs.paths import resolve


@dataclass(frozen=True, slots=True)
class _Made:
    """`name` in directory `parent`, whose mtime was `before` and became `after`; both in ns."""

    parent: str
    name: str
    inode: int
    before: int
    after: int


class MountPoints:
    """The ones made in directory `root`; leaving the context removes those that are still empty."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self.directories: dict[str, Entry] = {}  # those that something was made in, as they were before
        self._tree = DirectoryTree(root)
        self._made: list[_Made] = []
        self._covered: list[str] = []

    def __enter__(self) -> MountPoints:
        return self

    def __exit__(self, *_: object) -> None:
        for made in reversed(self._made):
            self._remove(made)

    def make(self, target: str, directory: bool, inside_others: bool = False) -> str:
        """Let something be at `target`; returns its path, links followed inside the root.

        Below an earlier mount point nothing is made (it would not be seen) but with `inside_others`.
        """
        path = resolve(self._tree, target)
        names = path.split("/")
        if not inside_others and any(path.startswith(covered + "/") for covered in self._covered):
            return path
        self._covered.append(path)
        for depth in range(1, len(names) + 1):
            try:
                self._make_one("/".join(names[: depth - 1]), names[depth - 1], directory or depth < len(names))
            except OSError as error:
                raise IsolationError(f"mount target {target}: {error.strerror}") from error
        return path

    def note(self, path: str) -> None:
        """Remember how directory `path` is, before something is made in it."""
        if path not in self.directories:
            entry = self._tree.entry(path)
            if entry is not None:
                self.directories[path] = entry

    def _make_one(self, parent: str, name: str, directory: bool) -> None:
        above = open_directory(self.root, parent)
        try:
            before = os.fstat(above).st_mtime_ns
            try:
                os.lstat(name, dir_fd=above)
                return
            except FileNotFoundError:
                self.note(parent)
            if directory:
                os.mkdir(name, 0o755, dir_fd=above)
            else:
                os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644, dir_fd=above))
            inode = os.lstat(name, dir_fd=above).st_ino
            self._made.append(_Made(parent, name, inode, before, os.fstat(above).st_mtime_ns))
        finally:
            os.close(above)

    def _remove(self, made: _Made) -> None:
        try:
            above = open_directory(self.root, made.parent)
        except OSError:
            return  # the step removed or replaced what it was in
        try:
            status = os.fstat(above)
            there = os.lstat(made.name, dir_fd=above)
            if there.st_ino != made.inode:
                return  # it is the step's own now
            if stat.S_ISDIR(there.st_mode):
                os.rmdir(made.name, dir_fd=above)
            elif there.st_size == 0:
                os.unlink(made.name, dir_fd=above)
            mtime = made.before if status.st_mtime_ns == made.after else status.st_mtime_ns
            os.utime(above, ns=(status.st_atime_ns, mtime))
        except OSError:
            return  # gone, or no longer empty: the step's own
        finally:
            os.close(above)
