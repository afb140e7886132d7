"""The directories behind `RUN --mount=type=cache`, kept from build to build and shared by processes.

    <directory>/<sha256 of the key>/id       the key, for people
                                   /lock     held while a slot is made
                                   /0        the cache
                                   /0.lock   held while it is used: shared, or exclusively
                                   /1 ...    further ones, when nobody may share

Locks are flock(2): they end with their process, however it ends.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol

from builder.errors import ContextError
from builder.steps.step import CacheMount
from builder.stopping import check_wanted

_POLL = 0.1  # seconds between two looks at a lock: a waiting flock could not be interrupted
_NEW = ".new"
_FIRST = "0"  # the slot of a cache that travels; further ones are for want of it

Fill = Callable[[Path], None]


class Elsewhere(Protocol):
    """Where the content of cache mounts is kept besides the disk. No method raises a BuildError. Thread-safe."""

    def fetch(self, mount: CacheMount, key: str, into: Path) -> bool:
        """Make the new directory `into` what `mount` was; False, and nothing made, if nothing is known of it."""
        ...

    def used(self, mount: CacheMount, key: str, path: Path) -> None:
        """A step has the mount at `path` now, and may write to it."""
        ...


class CacheMounts:
    """`stopped` ends waiting for a lock. A cache of which nothing is here may be `elsewhere`."""

    def __init__(
        self, directory: Path, stopped: Callable[[], bool] = lambda: False, elsewhere: Elsewhere | None = None
    ) -> None:
        self._directory = directory
        self._stopped = stopped
        self._elsewhere = elsewhere

    @contextmanager
    def use(self, mount: CacheMount, key: str, fill: Fill | None) -> Iterator[Path]:
        """The directory for `mount`, for as long as the context lasts. `key` decides which one.

        `shared`: with any number of others that share; `private`: alone, in another directory if that is needed;
        `locked`: alone, after whoever has it now. A new directory is made by `fill` (which gets a path to make), or
        empty with the mount's owner and mode. Raises ContextError when the disk says no.
        """
        home = self._directory / hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()
        with ExitStack() as stack:
            try:
                self._directory.mkdir(parents=True, exist_ok=True)
                home.mkdir(mode=0o700, exist_ok=True)  # what a step made setuid is for steps only
                path = self._acquire(home, mount, key, fill, stack)
            except OSError as error:
                raise ContextError(
                    f"the directory for the cache mount at {mount.target} cannot be used: {error.strerror}: {home}"
                ) from error
            if self._elsewhere is not None and path.name == _FIRST and not mount.read_only:
                self._elsewhere.used(mount, key, path)
            yield path

    def _acquire(self, home: Path, mount: CacheMount, key: str, fill: Fill | None, stack: ExitStack) -> Path:
        how = fcntl.LOCK_SH if mount.sharing == "shared" else fcntl.LOCK_EX
        while True:
            slot = 0
            while (home / str(slot)).is_dir():
                with ExitStack() as held:
                    if _lock(home / f"{slot}.lock", how, held) and (home / str(slot)).is_dir():
                        stack.push(held.pop_all())
                        return home / str(slot)  # otherwise it was pruned before it was locked
                slot += 1
            if slot == 0 or mount.sharing != "locked":
                self._make(home, slot, mount, key, fill)
                continue
            check_wanted(self._stopped)
            time.sleep(_POLL)

    def _make(self, home: Path, slot: int, mount: CacheMount, key: str, fill: Fill | None) -> None:
        """Make the directory of `slot`, unless somebody else just did. Half-made ones are never seen."""
        with ExitStack() as stack:
            while not _lock(home / "lock", fcntl.LOCK_EX, stack):
                check_wanted(self._stopped)
                time.sleep(_POLL)
            path, new = home / str(slot), home / f"{slot}{_NEW}"
            if path.is_dir():
                return
            (home / "id").write_bytes(key.encode(errors="surrogateescape"))
            shutil.rmtree(new, ignore_errors=True)  # of a build that was killed
            if slot == 0 and self._elsewhere is not None and self._elsewhere.fetch(mount, key, new):
                pass
            elif fill is not None:
                fill(new)
            else:
                new.mkdir()
                _chown(new, mount.uid, mount.gid)
                new.chmod(mount.mode)
            new.rename(path)


def _lock(path: Path, how: int, stack: ExitStack) -> bool:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, how | fcntl.LOCK_NB)
        os.utime(fd)  # of a slot, the last use: what was unused longest is removed first
    except BlockingIOError:
        os.close(fd)
        return False
    except BaseException:
        os.close(fd)
        raise
    stack.callback(os.close, fd)
    return True


def _chown(path: Path, uid: int, gid: int) -> None:
    if (uid, gid) == (0, 0):
        return
    try:
        os.chown(path, uid, gid)
    except OSError:
        pass  # an id that does not exist here: a process of that id will not exist either
