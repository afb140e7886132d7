"""Two directory trees change places by renaming, all but what must stay where it is.

Directories are moved whole. Those in which something stays, the spine, are gone through name by name, and what they
are like (owner, mode, times, attributes) changes places as well. What is written down before the first rename, and
where things lie, is enough to undo a swap that was cut off anywhere: see `undo`.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from builder.errors import IsolationError
from builder.rootfs.changes import Status, status_of
from builder.rootfs.directory import image_xattrs
from builder.rootfs.paths import join

_JOURNAL = "journal"
_ORIGINAL = "original"
_CLEARED = "cleared"  # is there when everything original is away, and what is shown may have come


@dataclass(slots=True)
class _Shown:
    """Statuses of what was moved, by path: in the tree before, and at the top afterwards."""

    before: dict[str, Status] = field(default_factory=dict)
    after: dict[str, Status] = field(default_factory=dict)


class Swap:
    """Directory `top` gets the contents of another tree and gets its own back. Used by one thread.

    `aside` is a directory of this swap alone, below something of `kept`: what is taken away from `top` waits there.
    `kept` are paths of `top` (relative) that stay in place with all below them. `top`, `aside` and every tree are on
    one file system.
    """

    def __init__(self, top: str, aside: str, kept: Collection[str]) -> None:
        self._top = top.rstrip("/")
        self._aside = aside
        self._kept = frozenset(path for path in kept if not _is_below_any(path, kept))
        self._spine = spine(self._kept)
        self._shown = _Shown()
        self._tree = ""

    def show(self, tree: str) -> None:
        """Let `top` be `tree`, but for what is kept. Raises IsolationError; then everything is as before."""
        try:
            self._write_journal(tree)
            self._take_originals()
            os.close(os.open(f"{self._aside}/{_CLEARED}", os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
            self._shown = self._bring(tree)
            self._tree = tree
        except BaseException as error:
            undo(self._top, self._aside)
            if isinstance(error, OSError):
                raise _failed("cannot be swapped", error) from error
            raise

    def hide(self) -> dict[Status, Status]:
        """Let `top` be as it was, and the tree that was shown be what became of it.

        Returns new statuses by old ones, for everything whose status was changed by being moved and by nothing else.
        Raises IsolationError.
        """
        shown, tree = self._shown, self._tree
        untouched = [path for path, status in shown.after.items() if _status(_at(self._top, path)) == status]
        undo(self._top, self._aside)
        found = {shown.before[path]: _status(_at(tree, path)) for path in untouched}
        return {before: after for before, after in found.items() if after is not None}

    def _write_journal(self, tree: str) -> None:
        directories = {
            path: _Spine(frozenset(os.listdir(_at(self._top, path))), _Likeness.of(_at(self._top, path)))
            for path in self._spine
        }
        with open(f"{self._aside}/{_JOURNAL}.new", "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(_Journal(tree, self._kept, directories).to_json())
        os.rename(f"{self._aside}/{_JOURNAL}.new", f"{self._aside}/{_JOURNAL}")

    def _take_originals(self) -> None:
        original = f"{self._aside}/{_ORIGINAL}"
        for directory in self._spine:
            os.mkdir(_at(original, directory), 0o700)
            for name in os.listdir(_at(self._top, directory)):
                path = join(directory, name)
                if path not in self._kept and path not in self._spine:
                    _move(_at(self._top, path), _at(original, path))

    def _bring(self, tree: str) -> _Shown:
        shown = _Shown()
        moved = list(_movable(tree, self._kept, self._spine))
        likenesses = {path: _Likeness.of(_at(tree, path)) for path in moved if path in self._spine}
        for path in moved:
            shown.before[path] = status_of(os.lstat(_at(tree, path)))
        for path in moved:
            if path not in self._spine:
                os.rename(_at(tree, path), _at(self._top, path))
        for path, likeness in reversed(likenesses.items()):
            likeness.give(_at(self._top, path))
        for path in moved:
            shown.after[path] = status_of(os.lstat(_at(self._top, path)))
        return shown


def undo(top: str, aside: str) -> None:
    """Put the original contents of `top` back and what was shown into its tree, however far the swap had come.

    `aside` is that of the swap. Nothing happens when it was undone before. Raises IsolationError; then trying again
    goes on where this ended.
    """
    top = top.rstrip("/")
    try:
        with open(f"{aside}/{_JOURNAL}", encoding="utf-8", errors="surrogateescape") as file:
            journal = _Journal.parse(file.read())
    except FileNotFoundError:
        return
    try:
        if os.path.exists(f"{aside}/{_CLEARED}"):
            _return_tree(top, f"{aside}/{_ORIGINAL}", journal)
        _return_originals(top, f"{aside}/{_ORIGINAL}", journal)
        if os.path.exists(f"{aside}/{_CLEARED}"):
            os.unlink(f"{aside}/{_CLEARED}")
        os.unlink(f"{aside}/{_JOURNAL}")
    except OSError as error:
        raise _failed("cannot be put back", error) from error


def spine(kept: Iterable[str]) -> list[str]:
    """The directories above `kept` paths, parents first; "" is the top."""
    found = {""}
    for path in kept:
        found |= {path[:end] for end in range(len(path)) if path[end] == "/"}
    return sorted(found)


def is_directory(top: str, path: str) -> bool:
    """Whether `path` of `top` is a directory and no component of it a symlink."""
    location = top or "/"
    for name in ["", *path.split("/")]:
        location = f"{location}/{name}" if name else location
        try:
            if not stat.S_ISDIR(os.lstat(location).st_mode):
                return False
        except OSError:
            return False
    return True


@dataclass(frozen=True, slots=True)
class _Likeness:
    """What a directory is like, apart from what is in it. Times in ns."""

    mode: int
    uid: int
    gid: int
    times: tuple[int, int]
    xattrs: Mapping[str, bytes]

    @classmethod
    def of(cls, path: str) -> _Likeness:
        status = os.lstat(path)
        times = (status.st_atime_ns, status.st_mtime_ns)
        return cls(stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, times, image_xattrs(path))

    def give(self, path: str) -> None:
        """Make directory `path` like this."""
        os.chown(path, self.uid, self.gid)
        os.chmod(path, self.mode)
        there = image_xattrs(path)
        for name in there.keys() - self.xattrs.keys():
            os.removexattr(path, name)
        for name, value in self.xattrs.items():
            if there.get(name) != value:
                os.setxattr(path, name, value)
        os.utime(path, ns=self.times)


@dataclass(frozen=True, slots=True)
class _Spine:
    """A directory of the spine, as it was before anything was moved."""

    names: frozenset[str]
    likeness: _Likeness


@dataclass(frozen=True, slots=True)
class _Journal:
    """What a swap is about: enough to undo it."""

    tree: str
    kept: frozenset[str]
    directories: Mapping[str, _Spine]

    def to_json(self) -> str:
        directories = {}
        for path, one in self.directories.items():
            like = one.likeness
            xattrs = {name: value.hex() for name, value in like.xattrs.items()}
            directories[path] = [sorted(one.names), [like.mode, like.uid, like.gid, like.times, xattrs]]
        return json.dumps({"tree": self.tree, "kept": sorted(self.kept), "directories": directories})

    @classmethod
    def parse(cls, text: str) -> _Journal:
        value = json.loads(text)
        directories = {}
        for path, (names, (mode, uid, gid, times, xattrs)) in value["directories"].items():
            attributes = {name: bytes.fromhex(text) for name, text in xattrs.items()}
            directories[path] = _Spine(frozenset(names), _Likeness(mode, uid, gid, tuple(times), attributes))
        return cls(value["tree"], frozenset(value["kept"]), directories)


def _is_below_any(path: str, others: Iterable[str]) -> bool:
    return any(path.startswith(other + "/") for other in others)


def _movable(tree: str, kept: Collection[str], spine: Collection[str]) -> Iterator[str]:
    """The paths of `tree` that are moved, and the spine directories that it has: parents first."""
    for directory in spine:
        if not is_directory(tree, directory):
            continue
        yield directory
        for name in os.listdir(_at(tree, directory)):
            path = join(directory, name)
            if path not in kept and path not in spine:
                yield path


def _return_tree(top: str, original: str, journal: _Journal) -> None:
    """Move what is shown back into its tree."""
    # A directory whose originals are back already (an earlier `undo` was cut off) shows nothing.
    directories = [path for path in journal.directories if is_directory(original, path) and is_directory(top, path)]
    likenesses = {path: _Likeness.of(_at(top, path)) for path in directories}
    for directory in directories:
        names = [name for name in os.listdir(_at(top, directory)) if _is_shown(directory, name, original, journal)]
        if names:
            _make_directories(likenesses, journal.tree, directory)
        for name in names:
            os.rename(_at(top, join(directory, name)), _at(journal.tree, join(directory, name)))
    for directory in reversed(directories):
        if is_directory(journal.tree, directory):
            likenesses[directory].give(_at(journal.tree, directory))


def _is_shown(directory: str, name: str, original: str, journal: _Journal) -> bool:
    """Whether `name` belongs to the tree that is shown: not when it stays, or is original and back."""
    path = join(directory, name)
    if path in journal.kept or path in journal.directories:
        return False
    return name not in journal.directories[directory].names or os.path.lexists(_at(original, path))


def _make_directories(likenesses: Mapping[str, _Likeness], tree: str, path: str) -> None:
    """Let `tree` have directory `path` of the spine, where the process wrote into one that only `top` had."""
    names = path.split("/") if path else []
    for depth in range(1, len(names) + 1):
        inside = "/".join(names[:depth])
        if not os.path.lexists(_at(tree, inside)):
            os.mkdir(_at(tree, inside))
            likenesses[inside].give(_at(tree, inside))
    if not is_directory(tree, path):
        raise IsolationError(f"/{path} is a directory of this container and none of the image")


def _return_originals(top: str, original: str, journal: _Journal) -> None:
    for directory, was in reversed(list(journal.directories.items())):
        if not is_directory(original, directory):
            continue  # not taken yet, or back already
        # The process may have moved it away, with what was to stay in it.
        os.makedirs(_at(top, directory), exist_ok=True)
        for name in os.listdir(_at(original, directory)):
            _move(_at(original, join(directory, name)), _at(top, join(directory, name)))
        was.likeness.give(_at(top, directory))
        os.rmdir(_at(original, directory))


def _move(source: str, target: str) -> None:
    """rename(2); what overlayfs does not let move, because it is a directory of an image's layer, name by name.

    A directory of which a part was moved already is moved on.
    """
    if is_directory(source, "") and os.path.lexists(target):
        likeness = _Likeness.of(target)
    else:
        try:
            os.rename(source, target)
            return
        except OSError as error:
            if error.errno != errno.EXDEV or not is_directory(source, ""):
                raise
        likeness = _Likeness.of(source)
        os.mkdir(target, 0o700)
    for name in os.listdir(source):
        _move(f"{source}/{name}", f"{target}/{name}")
    os.rmdir(source)
    likeness.give(target)


def _at(top: str, path: str) -> str:
    """Path `path` of directory `top`, whose last slash is stripped."""
    return f"{top}/{path}" if path else top or "/"


def _status(path: str) -> Status | None:
    try:
        return status_of(os.lstat(path))
    except OSError:
        return None


def _failed(what: str, error: OSError) -> IsolationError:
    return IsolationError(f"the root directory's contents {what}: {error.strerror}: {error.filename}")
