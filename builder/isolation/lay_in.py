"""What a step sees beside its root, where nothing can be mounted: laid into the root, and taken out afterwards."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from builder.errors import IsolationError
from builder.isolation import AgentSocket, Bind, Cache, ProcessMount, SecretFile, Tmpfs
from builder.isolation.agent import agent_proxy
from builder.isolation.mount_points import MountPoints
from builder.isolation.removal import remove_tree
from builder.isolation.specification import copy_of
from builder.isolation.untouched import Exchanged

DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
NO_DEVICES_HINT = "a chroot needs CAP_MKNOD, and a pod without `hostUsers: false`"


class CacheLocks:
    """A cache directory can lie in one root at a time: other steps wait. May be used from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._locks: dict[Path, threading.Lock] = {}

    def of(self, source: Path) -> threading.Lock:
        with self._lock:
            return self._locks.setdefault(source, threading.Lock())


def lay_in(
    mounts: Sequence[ProcessMount],
    devices: Mapping[str, tuple[int, int]],
    root: Path,
    directory: Path,
    caches: CacheLocks,
    stack: ExitStack,
    exchanged: Exchanged,
) -> None:
    """Lay `mounts` into `root` and `devices`, by their names, into its /dev; `stack` takes them out again.

    `directory` is an empty directory on the same file system. What is covered is added to `exchanged`. Raises
    IsolationError.
    """
    for source in sorted({mount.source for mount in mounts if isinstance(mount, Cache)}):
        stack.enter_context(caches.of(source))
    points = stack.enter_context(MountPoints(root))
    times = _DirectoryTimes(points)
    stack.callback(times.restore)
    covered = set()
    if devices:
        dev = points.make("/dev", directory=True, inside_others=True)
        times.note(dev)
        for name, device in devices.items():
            if not os.path.lexists(root / dev / name):
                stack.enter_context(_device(root / dev / name, device))
                covered.add(f"{dev}/{name}")
    outer_first = sorted(mounts, key=lambda mount: len([name for name in mount.target.split("/") if name]))
    for number, mount in enumerate(outer_first):
        path = points.make(mount.target, _is_directory(mount), inside_others=True)
        covered.add(path)
        aside = directory / str(number)
        aside.mkdir()
        times.note(path.rpartition("/")[0])
        try:
            _lay(mount, root / path, aside, stack)
        except OSError as error:
            raise IsolationError(f"mount on {mount.target}: {error.strerror}") from error
    times.settle()
    stack.callback(times.end)
    exchanged.add(covered, points.directories)


class _DirectoryTimes:
    """The mtimes of directories that something is laid into: afterwards as before, unless the process changed them."""

    def __init__(self, points: MountPoints) -> None:
        self._points = points
        self._before: dict[Path, int] = {}
        self._during: dict[Path, int | None] = {}
        self._after: dict[Path, int | None] = {}

    def note(self, path: str) -> None:
        """To be called before something is laid into directory `path` of the image."""
        self._points.note(path)
        directory = self._points.root / path
        self._before.setdefault(directory, os.stat(directory).st_mtime_ns)

    def settle(self) -> None:
        """Everything is laid in."""
        self._during = {directory: _mtime(directory) for directory in self._before}

    def end(self) -> None:
        """The process has ended, nothing is taken out yet."""
        self._after = {directory: _mtime(directory) for directory in self._before}

    def restore(self) -> None:
        """Everything is taken out."""
        for directory, before in self._before.items():
            after = self._after.get(directory)
            if after is not None and os.path.isdir(directory) and not os.path.islink(directory):
                mtime = before if after == self._during[directory] else after
                os.utime(directory, ns=(os.stat(directory).st_atime_ns, mtime))


def _mtime(directory: Path) -> int | None:
    """None when it is gone."""
    try:
        return os.stat(directory, follow_symlinks=False).st_mtime_ns
    except OSError:
        return None


def _is_directory(mount: ProcessMount) -> bool:
    match mount:
        case Bind():
            return mount.source.is_dir()
        case Cache() | Tmpfs():
            return True
        case SecretFile() | AgentSocket():
            return False


def _lay(mount: ProcessMount, location: Path, aside: Path, stack: ExitStack) -> None:
    stack.enter_context(_set_aside(location, aside / "aside"))
    match mount:
        case Bind():
            copy_of(mount.source, location)
        case Cache(read_only=True):
            copy_of(mount.source, location)
        case Cache():
            stack.enter_context(_moved_in(mount.source, location))
        case Tmpfs():
            location.mkdir()
            location.chmod(0o1777)
        case SecretFile():
            _write_secret(mount, location)
        case AgentSocket():
            os.link(stack.enter_context(agent_proxy(mount, aside)), location)


def _write_secret(secret: SecretFile, location: Path) -> None:
    descriptor = os.open(location, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as stream:
        stream.write(secret.data)
        os.fchown(descriptor, secret.uid, secret.gid)
        os.fchmod(descriptor, secret.mode)


@contextmanager
def _set_aside(location: Path, aside: Path) -> Iterator[None]:
    """What is at `location` waits at `aside`; whatever replaced it is removed in the end."""
    os.rename(location, aside)
    try:
        yield
    finally:
        try:
            _remove(location)
            os.rename(aside, location)
        except (FileNotFoundError, NotADirectoryError):
            pass  # the step removed the directory that it was in


def _remove(location: Path) -> None:
    try:
        if stat.S_ISDIR(os.lstat(location).st_mode):
            remove_tree(location)
        else:
            os.unlink(location)
    except FileNotFoundError:
        pass


@contextmanager
def _moved_in(source: Path, location: Path) -> Iterator[None]:
    """Directory `source` is at `location` inside the context, by renaming where both are on one file system."""
    try:
        os.rename(source, location)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        copy_of(source, location)
        try:
            yield
        finally:
            _replace(source, location)
        return
    try:
        yield
    finally:
        os.rename(location, source)


def _replace(source: Path, location: Path) -> None:
    """Make directory `source`, on another file system, what `location` is; never with less than one of them whole."""
    new, old = source.with_name(source.name + ".new"), source.with_name(source.name + ".old")
    _remove(new)
    copy_of(location, new)
    os.rename(source, old)
    os.rename(new, source)
    shutil.rmtree(old)


@contextmanager
def _device(location: Path, number: tuple[int, int]) -> Iterator[None]:
    try:
        os.mknod(location, stat.S_IFCHR | 0o600, os.makedev(*number))
    except OSError as error:
        # Without it, `>/dev/null` would make a file that the layer gets.
        raise IsolationError(f"/dev/{location.name} cannot be made: {error.strerror}", NO_DEVICES_HINT) from error
    try:
        os.chmod(location, 0o666)
        yield
    finally:
        try:
            if os.lstat(location).st_rdev == os.makedev(*number):
                os.unlink(location)
        except FileNotFoundError:
            pass  # the step removed it
