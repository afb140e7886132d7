"""A real directory as a tree."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from builder.rootfs.entry import NO_XATTRS, Entry, FileContent, FileType
from builder.rootfs.paths import join

# (entry as it is on disk, its absolute path on disk) -> entry as the image sees it
Translate = Callable[[Entry, str], Entry]

_TYPES = {
    stat.S_IFREG: FileType.FILE,
    stat.S_IFDIR: FileType.DIRECTORY,
    stat.S_IFLNK: FileType.SYMLINK,
    stat.S_IFCHR: FileType.CHARACTER_DEVICE,
    stat.S_IFBLK: FileType.BLOCK_DEVICE,
    stat.S_IFIFO: FileType.FIFO,
}
# overlayfs's own notes, and Limpet's, are not part of an image.
_PRIVATE = ("trusted.overlay.", "user.overlay.", "user.limpet.")


class DirectoryTree:
    """Tree over the directory `path` of this machine, as it is whenever it is asked.

    Extended attributes are those that a layer carries: `user.*`, `trusted.*` (visible to real root only) and
    `security.capability`. Sockets are left out. `owners` turns an entry as it is on disk into the image's, for
    places where files cannot have their true owner. Errors of the file system other than absence are OSErrors.
    """

    def __init__(self, path: str | Path, owners: Translate | None = None) -> None:
        self.path = str(path)
        self._owners = owners

    def entry(self, path: str) -> Entry | None:
        slash = path.find("/")
        try:
            while slash != -1:
                if not stat.S_ISDIR(os.lstat(f"{self.path}/{path[:slash]}").st_mode):
                    return None
                slash = path.find("/", slash + 1)
            status = os.lstat(self.location(path))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:  # no such name can exist
                return None
            raise
        return self.entry_of(path, status)

    def names(self, path: str) -> list[str]:
        entry = self.entry(path)
        if entry is None or entry.type is not FileType.DIRECTORY:
            return []
        with os.scandir(self.location(path)) as listing:
            found = list(listing)
        names = [item.name for item in found if _is_there(item)]
        return sorted(names, key=os.fsencode)

    def children(self, path: str) -> list[Entry]:
        entry = self.entry(path)
        if entry is None or entry.type is not FileType.DIRECTORY:
            return []
        return list(self._listed(path))

    def walk(self, path: str = "") -> Iterator[Entry]:
        """Everything inside directory `path` (not itself): parents first, siblings sorted by bytes."""
        for entry in self._listed(path):
            yield entry
            if entry.type is FileType.DIRECTORY:
                yield from self.walk(entry.path)

    def _listed(self, path: str) -> Iterator[Entry]:
        with os.scandir(self.location(path)) as listing:
            found = sorted(listing, key=lambda item: os.fsencode(item.name))
        for item in found:
            try:
                entry = self.entry_of(join(path, item.name), item.stat(follow_symlinks=False))
            except FileNotFoundError:  # gone since it was listed
                continue
            if entry is not None:
                yield entry

    def location(self, path: str) -> str:
        """Where `path` of the image is on disk; no link is resolved."""
        return f"{self.path}/{path}" if path else self.path

    def entry_of(self, path: str, status: os.stat_result) -> Entry | None:
        """The entry for `path` whose lstat is `status`; None for a socket."""
        file_type = _TYPES.get(stat.S_IFMT(status.st_mode))
        if file_type is None:
            return None
        location = self.location(path)
        is_file = file_type is FileType.FILE
        is_device = file_type in (FileType.CHARACTER_DEVICE, FileType.BLOCK_DEVICE)
        is_link = file_type is FileType.SYMLINK
        entry = Entry(
            path=path,
            type=file_type,
            mode=0o777 if is_link else stat.S_IMODE(status.st_mode),
            uid=status.st_uid,
            gid=status.st_gid,
            mtime=status.st_mtime_ns,
            size=status.st_size if is_file else 0,
            target=os.readlink(location) if is_link else "",
            device=(os.major(status.st_rdev), os.minor(status.st_rdev)) if is_device else (0, 0),
            xattrs=image_xattrs(location),
            content=FileContent(location) if is_file else None,
            link_id=(status.st_dev, status.st_ino) if is_file and status.st_nlink > 1 else None,
        )
        return self._owners(entry, location) if self._owners else entry


def image_xattrs(location: str) -> Mapping[str, bytes]:
    """The extended attributes of the file at `location` (not followed) that belong into a layer."""
    try:
        names = os.listxattr(location, follow_symlinks=False)
    except OSError as error:
        if error.errno in (errno.ENOTSUP, errno.EPERM, errno.EACCES):
            return NO_XATTRS
        raise
    kept = [name for name in names if is_image_xattr(name)]
    if not kept:
        return NO_XATTRS
    return MappingProxyType({name: os.getxattr(location, name, follow_symlinks=False) for name in sorted(kept)})


def is_image_xattr(name: str) -> bool:
    """Whether the attribute belongs to the image and not to this machine (labels, ACLs) or to a mount."""
    if name == "security.capability":
        return True
    return name.startswith(("user.", "trusted.")) and not name.startswith(_PRIVATE)


def _is_there(item: os.DirEntry[str]) -> bool:
    """Whether a name is an entry: not a socket, and not an overlayfs whiteout of nothing, which readdir shows."""
    # is_file and friends need no stat where the directory tells the type; only other kinds must be found out.
    if item.is_dir(follow_symlinks=False) or item.is_symlink() or item.is_file(follow_symlinks=False):
        return True
    try:
        return not stat.S_ISSOCK(item.stat(follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False
