"""Owners where files cannot have them: with one id, every file on disk is root's, and its owner is noted beside it."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from builder.isolation.directories import open_directory
from builder.rootfs.entry import Entry, FileType

OWNER_XATTR = "user.limpet.owner"
DEVICE_XATTR = "user.limpet.device"
_AS_SEEN = b"?"  # ends the note of a file that is root's because a program asked for root, as it sees every file
# The file system has no user.* attributes (tmpfs before Linux 6.6), or not for this kind of file (symlinks, devices).
_NO_XATTR = (errno.ENOTSUP, errno.EPERM, errno.EACCES)

_Inode = tuple[int, int, bytes]  # number, kind of file, target of a symlink


class Owners(Protocol):
    """Who owns what in the roots of one isolation."""

    @property
    def recorded(self) -> bool:
        """Whether owners are noted beside the files."""
        ...

    def settled(self, entry: Entry, location: str, below: Callable[[], Entry | None]) -> Entry:
        """`entry`, changed in a file at `location`, with the owner that its layer says; `below` is what it replaces.

        A program that replaces a file gives the new one the owner that it saw the old one have. Where it saw root
        because everything is root's, that means the noted owner of the old one.
        """
        ...

    def adopt(self, root: Path, paths: Iterable[str], uid: int, gid: int, gave: Callable[[str], bool]) -> None:
        """A process of `uid` and `gid` made what is at `paths` of directory `root`.

        `gave` tells whether directory `path`, which is not one of them, had the setgid bit before that.
        """
        ...

    def set(self, parent: int, name: str, entry: Entry) -> bool:
        """Give file `name` of directory `parent` (a descriptor) the owner of `entry`. Raises OSError.

        False when only this object knows it, and not the file itself.
        """
        ...

    def of(self, entry: Entry, location: str) -> Entry:
        """`entry`, read from `location` of the disk, with its owner as the image sees it."""
        ...


class RealOwners:
    """Files have their owners."""

    recorded = False

    def settled(self, entry: Entry, location: str, below: Callable[[], Entry | None]) -> Entry:
        return entry

    def adopt(self, root: Path, paths: Iterable[str], uid: int, gid: int, gave: Callable[[str], bool]) -> None:
        pass  # the kernel saw to it

    def set(self, parent: int, name: str, entry: Entry) -> bool:
        os.chown(name, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
        return True

    def of(self, entry: Entry, location: str) -> Entry:
        return entry


class RecordedOwners:
    """Files have their owner in an extended attribute, or here by inode where they cannot have one.

    All files are on one file system: overlayfs then shows the inode numbers of the layers below. A number is used
    again once its file is gone, so a file of another kind with it, or a symlink with another target, is another file.
    Only owners other than root need be noted. Devices are empty files with a note. May be used from any thread.
    """

    recorded = True

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_inode: dict[_Inode, tuple[int, int]] = {}

    def set(self, parent: int, name: str, entry: Entry) -> bool:
        descriptor = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            path = f"/proc/self/fd/{descriptor}"
            if (entry.uid, entry.gid) != (0, 0) or self._has(path):
                return self.record(path, entry.uid, entry.gid)
            return True
        finally:
            os.close(descriptor)

    def of(self, entry: Entry, location: str) -> Entry:
        uid, gid = self._read(location, follow=False)
        entry = replace(entry, uid=uid, gid=gid)
        device = _get(location, DEVICE_XATTR, follow=False) if entry.type is FileType.FILE and not entry.size else None
        if device is not None:
            kind, major, minor = device.split()
            file_type = FileType.CHARACTER_DEVICE if kind == b"c" else FileType.BLOCK_DEVICE
            entry = replace(entry, type=file_type, device=(int(major), int(minor)), content=None, link_id=None)
        return entry

    def record(self, path: str, uid: int, gid: int) -> bool:
        """Note the owner of what is at `path`, followed to its end; -1 leaves one of them as it is.

        Whether the note is in the file itself. Raises OSError.
        """
        old_uid, old_gid = self.read(path)
        uid, gid = old_uid if uid == -1 else uid, old_gid if gid == -1 else gid
        status = os.stat(path)
        if stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode):
            note = f"{uid}:{gid}".encode()
            if (uid, gid) == (old_uid, old_gid) == (0, 0):
                note += _AS_SEEN
            try:
                os.setxattr(path, OWNER_XATTR, note)
                return True
            except OSError as error:
                if error.errno not in _NO_XATTR:
                    raise
        with self._lock:
            self._by_inode[_inode(path, follow=True)] = (uid, gid)
        return False

    def settled(self, entry: Entry, location: str, below: Callable[[], Entry | None]) -> Entry:
        if entry.type is not FileType.FILE or (entry.uid, entry.gid) != (0, 0):
            return entry
        note = _get(location, OWNER_XATTR, follow=False)
        if note is None or not note.endswith(_AS_SEEN):
            return entry
        old = below()
        if old is None or old.type is not FileType.FILE or (old.uid, old.gid) == (0, 0):
            return entry
        os.setxattr(location, OWNER_XATTR, f"{old.uid}:{old.gid}".encode(), follow_symlinks=False)
        return replace(entry, uid=old.uid, gid=old.gid)

    def record_device(self, path: str, mode: int, device: int) -> None:
        """Note that the empty file at `path` stands for a device; `device` as the kernel numbers it."""
        # new_encode_dev of the kernel, which os.major does not take apart on every machine
        major, minor = (device & 0xFFF00) >> 8, (device & 0xFF) | (device >> 12 & 0xFFF00)
        kind = "c" if stat.S_ISCHR(mode) else "b"
        os.setxattr(path, DEVICE_XATTR, f"{kind} {major} {minor}".encode())

    def adopt(self, root: Path, paths: Iterable[str], uid: int, gid: int, gave: Callable[[str], bool]) -> None:
        """What a process of `uid` and `gid` made at `paths` of directory `root` is its own, unless noted otherwise.

        Its group is the directory's when that had the setgid bit before and still has it, or got it from such a one
        when it was made. A directory that got the bit otherwise had it for an unknown part of the time only.
        """
        made = sorted(paths)  # a directory before what is in it
        gives = dict.fromkeys(made, False)
        for path in made:
            above, _, name = path.rpartition("/")
            parent = open_directory(root, above)
            try:
                if above not in gives:
                    gives[above] = gave(above) and bool(os.fstat(parent).st_mode & stat.S_ISGID)
                group = self.read(f"/proc/self/fd/{parent}")[1] if gives[above] else gid
                descriptor = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
            finally:
                os.close(parent)
            try:
                mode = os.fstat(descriptor).st_mode
                gives[path] = gives[above] and stat.S_ISDIR(mode) and bool(mode & stat.S_ISGID)
                if (uid, group) != (0, 0) and not self._has(f"/proc/self/fd/{descriptor}"):
                    self.record(f"/proc/self/fd/{descriptor}", uid, group)
            finally:
                os.close(descriptor)

    def read(self, path: str) -> tuple[int, int]:
        """(uid, gid) of what is at `path`, followed to its end. Raises OSError when nothing is."""
        return self._read(path, follow=True)

    def _has(self, path: str) -> bool:
        if _get(path, OWNER_XATTR, follow=True) is not None:
            return True
        with self._lock:
            return _inode(path, follow=True) in self._by_inode

    def _read(self, path: str, follow: bool) -> tuple[int, int]:
        noted = _noted(path, follow)
        if noted is not None:
            return noted
        with self._lock:
            if not self._by_inode:
                return (0, 0)
            return self._by_inode.get(_inode(path, follow), (0, 0))


def _inode(path: str, follow: bool) -> _Inode:
    """What tells the file at `path` from others; `follow` also leads from /proc/self/fd/N to a symlink itself."""
    status = os.stat(path, follow_symlinks=follow)
    target = b""
    if stat.S_ISLNK(status.st_mode):
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW))
        try:
            target = os.readlink(b"", dir_fd=descriptor)
        finally:
            os.close(descriptor)
    return status.st_ino, stat.S_IFMT(status.st_mode), target


def with_noted_owner(entry: Entry, location: str) -> Entry:
    """`entry`, read from `location`, with the owner that some isolation noted in the file itself, if one did."""
    noted = _noted(location, follow=False)
    return entry if noted is None else replace(entry, uid=noted[0], gid=noted[1])


def _noted(path: str, follow: bool) -> tuple[int, int] | None:
    """The owner that is noted in the file itself."""
    note = _get(path, OWNER_XATTR, follow)
    if note is None:
        return None
    uid, _, gid = note.removesuffix(_AS_SEEN).partition(b":")
    return int(uid), int(gid)


def _get(path: str, name: str, follow: bool) -> bytes | None:
    try:
        return os.getxattr(path, name, follow_symlinks=follow)
    except OSError as error:
        if error.errno in (errno.ENODATA, *_NO_XATTR):
            return None
        raise
