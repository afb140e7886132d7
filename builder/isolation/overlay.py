"""A root on overlayfs: one lower directory for each layer, one upper directory for what runs next."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from builder.errors import IsolationError
from builder.isolation import Process, syscalls
from builder.isolation.apply import apply_changes
from builder.isolation.launch import Running
from builder.isolation.owners import Owners
from builder.isolation.removal import remove_tree
from builder.isolation.runner import Runner
from builder.isolation.untouched import Exchanged, without_untouched
from builder.rootfs.changes import overlay_changes
from builder.rootfs.directory import DirectoryTree
from builder.rootfs.entry import Change, Entry, FileType

MAX_LOWERS = 480  # the kernel's OVL_MAX_STACK is 500


@dataclass(frozen=True, slots=True)
class OverlayKind:
    """Under which prefix overlayfs keeps its notes, and the mount options that follow from it."""

    xattr: Literal["trusted", "user"]

    @property
    def options(self) -> str:
        """To be appended to lowerdir, upperdir and workdir: nothing but what every layer format can express."""
        own = ",userxattr" if self.xattr == "user" else ",redirect_dir=nofollow"
        return f",index=off,metacopy=off{own}"


class OverlayRoot:
    """A root in directory `directory`, which is its own; `lowers` are bottom first and belong to others.

    Used by one thread, except `close`, which any thread may call.
    """

    def __init__(
        self, directory: Path, lowers: Sequence[Path], kind: OverlayKind, runner: Runner, owners: Owners
    ) -> None:
        self._directory = directory
        self._names = directory / "l"
        self._names.mkdir()
        self._path = directory / "merged"
        self._path.mkdir()
        self._lowers: list[Path] = []
        self._kind = kind
        self._runner = runner
        self._owners = owners
        self._running = Running()
        self._lock = threading.Lock()
        self._mounted = False
        self._ran = False  # since the last commit
        self._generation = 0
        for lower in lowers or [self._empty()]:
            self._push(lower)
        self._mount()

    @property
    def path(self) -> Path:
        return self._path

    @property
    def looks_everywhere(self) -> bool:
        return False

    def tree(self) -> DirectoryTree:
        return DirectoryTree(self._path, self._owners.of if self._owners.recorded else None)

    def run(self, process: Process) -> None:
        with self._lock:
            # Only where owners are noted is it of interest who made what.
            noted = self._owners.recorded
            existing = dict(self._in_upper()) if noted and self._ran else {}
            self._ran = True
            self._runner.run(process, self._path, self._directory / "run", self._running, Exchanged())
            if noted:
                self._adopt(process, existing)

    def commit(self) -> Iterable[Change]:
        with self._lock:
            self._ran = False
            owners = self._owners.of if self._owners.recorded else None
            changes = list(overlay_changes(self._upper, self._lowers[::-1], owners=owners))
            changes = [self._settled(change) for change in changes]
            # A directory gets into the upper one already when a mount point is made and removed in it.
            changes = without_untouched(changes, lambda entry: self._below(entry.path) == entry)
            if changes:
                self._freeze()
            return changes

    def apply(self, changes: Iterable[Change]) -> None:
        with self._lock:
            # With uncommitted changes below, these become part of the next commit, which says the same of them.
            apply_changes(changes, self._path, self._owners)
            if not self._ran:
                self._freeze()

    def close(self) -> None:
        """End every process, unmount, and remove the directory."""
        self._running.end()
        with self._lock:
            self._unmount()
            remove_tree(self._directory)

    @property
    def _upper(self) -> Path:
        return self._directory / f"{self._generation}u"

    def _adopt(self, process: Process, existing: Mapping[str, int]) -> None:
        """Note who owns what `process` made; the upper directory had `existing`, modes by paths, before it ran."""

        def gave(directory: str) -> bool:
            mode = existing.get(directory)
            if mode is None:
                below = self._below(directory)
                mode = below.mode if below else 0
            return bool(mode & stat.S_ISGID)

        now = dict(self._in_upper())
        now[""] = os.stat(self._upper).st_mode
        root = (process.uid, process.gid) == (0, 0)  # its files are its own already, but for their group
        made = (
            path
            for path in now
            if path and path not in existing
            if not root or now[path.rpartition("/")[0]] & stat.S_ISGID
            if self._below(path) is None
        )
        self._owners.adopt(self._path, made, process.uid, process.gid, gave)

    def _settled(self, change: Change) -> Change:
        if not isinstance(change, Entry):
            return change
        return self._owners.settled(change, f"{self._upper}/{change.path}", lambda: self._below(change.path))

    def _in_upper(self) -> Iterator[tuple[str, int]]:
        """The paths that the upper directory has and their permission bits, whiteouts left out."""
        for entry in DirectoryTree(self._upper).walk():
            if entry.type is not FileType.CHARACTER_DEVICE:
                yield entry.path, entry.mode

    def _below(self, path: str) -> Entry | None:
        """What the lower directories have at `path`."""
        owners = self._owners.of if self._owners.recorded else None
        trees = (DirectoryTree(lower, owners) for lower in reversed(self._lowers))
        return next(filter(None, (tree.entry(path) for tree in trees)), None)

    def _empty(self) -> Path:
        empty = self._directory / "empty"
        empty.mkdir(mode=0o755)
        os.chmod(empty, 0o755)
        return empty

    def _push(self, lower: Path) -> None:
        os.symlink(lower, self._names / str(len(self._lowers)))
        self._lowers.append(lower)

    def _freeze(self) -> None:
        """Let the upper directory become the topmost lower one: from now on nothing changes it."""
        self._unmount()
        self._push(self._upper)
        self._mount()

    def _mount(self) -> None:
        if len(self._lowers) > MAX_LOWERS:
            raise IsolationError(
                f"an overlay of {len(self._lowers)} layers is more than Linux can do", "use --isolation=chroot"
            )
        self._generation += 1
        upper, work = self._upper, self._directory / f"{self._generation}w"
        upper.mkdir()
        work.mkdir()
        copy_directory_status(self._lowers[-1], upper)
        for name, target in (("u", upper), ("w", work)):
            link = self._names / name
            link.unlink(missing_ok=True)
            link.symlink_to(target)
        lowers = ":".join(str(number) for number in reversed(range(len(self._lowers))))
        data = f"lowerdir={lowers},upperdir=u,workdir=w{self._kind.options}"
        here = os.stat(self._directory).st_dev
        if any(os.stat(lower).st_dev != here for lower in self._lowers):
            data += ",xino=auto"  # else a step sees files on another file system than their directories
        try:
            try:
                # Upper directories are never used again after a crash, so nothing has to wait for the disk.
                syscalls.mount_from(str(self._names), "overlay", str(self._path), "overlay", data + ",volatile")
            except OSError:
                syscalls.mount_from(str(self._names), "overlay", str(self._path), "overlay", data)
        except OSError as error:
            raise IsolationError(f"overlay mount on {self._path}: {error.strerror}") from error
        self._mounted = True

    def _unmount(self) -> None:
        if self._mounted:
            syscalls.unmount(str(self._path))
            self._mounted = False


def copy_directory_status(source: Path, target: Path) -> None:
    """Mode, owner, extended attributes and mtime of directory `source`: overlayfs takes them from the topmost one."""
    status = os.stat(source)
    for name in os.listxattr(source):
        if not name.startswith(("trusted.overlay.", "user.overlay.")):
            os.setxattr(target, name, os.getxattr(source, name))
    os.chown(target, status.st_uid, status.st_gid)
    os.chmod(target, status.st_mode & 0o7777)
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
