"""A part of a tree as a real directory: for mounts that cannot be the place itself."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable, Hashable
from pathlib import Path

from builder.errors import ContextError
from builder.rootfs.entry import Entry, FileContent, FileType
from builder.rootfs.paths import join
from builder.rootfs.tree import Tree
from builder.steps import sources
from builder.steps.sources import Source
from builder.stopping import check_wanted

_NODES = {
    FileType.CHARACTER_DEVICE: stat.S_IFCHR,
    FileType.BLOCK_DEVICE: stat.S_IFBLK,
    FileType.FIFO: stat.S_IFIFO,
}
# Linking fails across file systems, for too many links, and where fs.protected_hardlinks forbids it.
_CANNOT_LINK = (errno.EXDEV, errno.EMLINK, errno.EPERM, errno.EACCES)
# Owners that do not exist here, and what only root may set.
_CANNOT_SET = (errno.EPERM, errno.EINVAL, errno.ENOTSUP)


def materialise(tree: Tree, path: str, into: Path, *, link: bool, stopped: Callable[[], bool] = lambda: False) -> None:
    """Make `into`, which must not exist, what `path` of `tree` is: a directory with everything below, or a file.

    With `link`, files that are on disk with the right owner become further names of themselves: for readers only.
    Owners and attributes that this process may not set are left out. Raises ContextError when the disk says no, and
    BuildError as soon as `stopped` says that nobody wants it any more.
    """
    entry = tree.entry(path)
    assert entry is not None, path
    first_names: dict[Hashable, str] = {}
    directories: list[tuple[str, Entry]] = []
    try:
        for found in sources.walk(tree, Source(path, "", entry), ()):
            check_wanted(stopped)
            target = join(str(into), found.relative) if found.relative else str(into)
            if found.entry.type is FileType.DIRECTORY:
                os.mkdir(target, 0o700)
                directories.append((target, found.entry))
                continue
            key = found.entry.link_id
            first = first_names.setdefault(key, target) if key is not None else target
            if first != target:
                os.link(first, target)
            elif not (link and _linked(found.entry, target)) and _created(found.entry, target):
                _set_status(found.entry, target)
        for target, directory in reversed(directories):
            _set_status(directory, target)
    except OSError as error:
        raise ContextError(f"cannot copy /{path} for a mount: {error.strerror}: {error.filename}") from error


def _linked(entry: Entry, target: str) -> bool:
    if not isinstance(entry.content, FileContent):
        return False
    status = os.lstat(entry.content.path)
    if (status.st_uid, status.st_gid) != (entry.uid, entry.gid):
        return False
    try:
        os.link(entry.content.path, target, follow_symlinks=False)
    except OSError as error:
        if error.errno in _CANNOT_LINK:
            return False
        raise
    return True


def _created(entry: Entry, target: str) -> bool:
    """Make what is no directory; False for a device that cannot be made here."""
    if entry.type is FileType.FILE:
        assert entry.content is not None
        with entry.content.open() as source, open(target, "xb") as file:
            shutil.copyfileobj(source, file, 1 << 20)
    elif entry.type is FileType.SYMLINK:
        os.symlink(entry.target, target)
    else:
        try:
            os.mknod(target, _NODES[entry.type] | 0o600, os.makedev(*entry.device))
        except PermissionError:
            return False
    return True


def _set_status(entry: Entry, target: str) -> None:
    try:
        os.chown(target, entry.uid, entry.gid, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _CANNOT_SET:
            raise
    for name, value in entry.xattrs.items():
        try:
            os.setxattr(target, name, value, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _CANNOT_SET:
                raise
    if entry.type is not FileType.SYMLINK:
        os.chmod(target, entry.mode)
    os.utime(target, ns=(entry.mtime, entry.mtime), follow_symlinks=False)
