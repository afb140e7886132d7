"""Unpacked layers by diff_id, as lower directories of overlays that several builds share."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable
from operator import itemgetter
from pathlib import Path

from builder.errors import BuildError
from builder.isolation.removal import remove_tree
from builder.isolation.store import NotKept, StoredLayer
from builder.store.entries import Entries, Entry, Making, name_of

KIND = "layers"
_TREE = "tree"
_DISK_SAYS_NO = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM, errno.ENOTSUP)


class StoredLayers:
    """The unpacked layers of a store in one `form`: see builder.isolation.store.KeptLayers.

    Forms are directories of files that differ on disk: by overlayfs's attributes, and by who the owners are.
    A layer's files are compared with what was noted when they were unpacked, once for each build: names, types,
    modes, owners, sizes and times, but not contents.
    """

    def __init__(self, entries: Entries, form: str) -> None:
        self._entries = entries
        self._kind = f"{KIND}-{form}"
        self._good: dict[str, Entry] = {}  # those whose files were compared, by name

    def get(self, diff_id: str) -> StoredLayer | None:
        """The layer's directory if it is there, and as it was."""
        return self._stored(self._entries.open(self._kind, name_of(diff_id)))

    def get_or_make(self, diff_id: str, fill: Callable[[Path], StoredLayer]) -> StoredLayer | None:
        """See KeptLayers."""
        stored = self.get(diff_id)
        if stored is not None:
            return stored
        making = self._entries.make(self._kind, name_of(diff_id), wait=True)
        if not isinstance(making, Making):
            return self._stored(making)
        try:
            return self._stored(_make(making, fill), fresh=True)
        except NotKept:
            return None
        except BuildError as error:
            cause = error.__cause__
            if not isinstance(cause, OSError) or cause.errno not in _DISK_SAYS_NO:
                raise
            self._entries.failed(cause)
            return None
        except OSError as error:
            self._entries.failed(error)
            return None
        finally:
            making.abandon()

    def _stored(self, entry: Entry | None, *, fresh: bool = False) -> StoredLayer | None:
        if entry is None:
            return None
        tree = entry.path / _TREE
        try:
            compared = fresh or self._good.get(entry.name) is entry
            if not compared and fingerprint(tree)[0] != entry.value["fingerprint"]:
                raise ValueError("its files are not those that were unpacked")
            self._good[entry.name] = entry
            not_applied = tuple((str(path), str(what)) for path, what in entry.value["not_applied"])
            return StoredLayer(tree, tuple(entry.value["implied"]), not_applied)
        except (OSError, ValueError, KeyError, TypeError) as error:
            self._entries.remove(entry, str(error))
            return None


def fingerprint(tree: Path) -> tuple[str, int]:
    """What identifies the files of `tree` without reading them, and their size on disk in bytes. Raises OSError."""
    digest = hashlib.sha256()
    status = os.lstat(tree)
    digest.update(os.fsencode(_line("", status)))
    size = status.st_blocks * 512
    waiting = [str(tree)]
    while waiting:
        directory = waiting.pop()
        with os.scandir(directory) as listing:
            found = sorted([(item.name, item.stat(follow_symlinks=False)) for item in listing], key=itemgetter(0))
        digest.update(os.fsencode(f"{len(found)}\n" + "".join([_line(name, status) for name, status in found])))
        for name, status in found:
            size += status.st_blocks * 512
            if stat.S_ISDIR(status.st_mode):
                waiting.append(f"{directory}/{name}")
    return digest.hexdigest(), size


def _line(name: str, status: os.stat_result) -> str:
    # A directory's size is the file system's affair, and some keep times in whole seconds only.
    size = 0 if stat.S_ISDIR(status.st_mode) else status.st_size
    return f"{name}\0{status.st_mode} {status.st_uid} {status.st_gid} {size} {int(status.st_mtime)}\n"


def _make(making: Making, fill: Callable[[Path], StoredLayer]) -> Entry | None:
    tree = making.path / _TREE
    tree.mkdir()
    try:
        stored = fill(tree)
    except BaseException:
        remove_tree(tree)
        raise
    mark, size = fingerprint(tree)
    # An image's setuid programs are not for everybody who can see the store.
    return making.finish(size, private=True, fingerprint=mark, implied=stored.implied, not_applied=stored.not_applied)
