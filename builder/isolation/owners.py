"""Owners where files cannot have them: with one id, every file on disk is root's, and its owner is noted beside it."""

from __future__ import annotations

import errno
import os
import stat
import threading
from dataclasses import replace
from typing import Protocol

from builder.rootfs.entry import Entry

OWNER_XATTR = "user.limpet.owner"
# The file system has no user.* attributes (tmpfs before Linux 6.6), or not for this kind of file (symlinks, devices).
_NO_XATTR = (errno.ENOTSUP, errno.EPERM, errno.EACCES)


class Owners(Protocol):
    """Who owns what in the roots of one isolation."""

    @property
    def recorded(self) -> bool:
        """Whether owners are noted beside the files."""
        ...

    def set(self, parent: int, name: str, entry: Entry) -> None:
        """Give file `name` of directory `parent` (a descriptor) the owner of `entry`. Raises OSError."""
        ...

    def of(self, entry: Entry, location: str) -> Entry:
        """`entry`, read from `location` of the disk, with its owner as the image sees it."""
        ...


class RealOwners:
    """Files have their owners."""

    recorded = False

    def set(self, parent: int, name: str, entry: Entry) -> None:
        os.chown(name, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)

    def of(self, entry: Entry, location: str) -> Entry:
        return entry


class RecordedOwners:
    """Files have their owner in an extended attribute, or here by inode where they cannot have one.

    All files are on one file system: overlayfs then shows the inode numbers of the layers below. Only owners other
    than root are noted. May be used from any thread.
    """

    recorded = True

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_inode: dict[int, tuple[int, int]] = {}

    def set(self, parent: int, name: str, entry: Entry) -> None:
        self.record(f"/proc/self/fd/{parent}/{name}", entry.uid, entry.gid)

    def of(self, entry: Entry, location: str) -> Entry:
        uid, gid = self.read(location)
        return replace(entry, uid=uid, gid=gid)

    def record(self, path: str, uid: int, gid: int) -> None:
        """Note the owner of what is at `path`; a symlink is not followed; -1 leaves one of them as it is."""
        if uid == -1 or gid == -1:
            old_uid, old_gid = self.read(path)
            uid, gid = old_uid if uid == -1 else uid, old_gid if gid == -1 else gid
        status = os.lstat(path)
        if stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode):
            try:
                if (uid, gid) != (0, 0):
                    os.setxattr(path, OWNER_XATTR, f"{uid}:{gid}".encode(), follow_symlinks=False)
                else:
                    _remove_xattr(path)
                return
            except OSError as error:
                if error.errno not in _NO_XATTR:
                    raise
        with self._lock:
            if (uid, gid) != (0, 0):
                self._by_inode[status.st_ino] = (uid, gid)
            else:
                self._by_inode.pop(status.st_ino, None)

    def read(self, path: str) -> tuple[int, int]:
        """(uid, gid) of what is at `path`. Raises OSError when nothing is."""
        try:
            uid, _, gid = os.getxattr(path, OWNER_XATTR, follow_symlinks=False).partition(b":")
            return int(uid), int(gid)
        except OSError as error:
            if error.errno not in (errno.ENODATA, *_NO_XATTR):
                raise
        with self._lock:
            return self._by_inode.get(os.lstat(path).st_ino, (0, 0)) if self._by_inode else (0, 0)


def _remove_xattr(path: str) -> None:
    try:
        os.removexattr(path, OWNER_XATTR, follow_symlinks=False)
    except OSError as error:
        if error.errno != errno.ENODATA:
            raise
