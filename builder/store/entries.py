"""Entries of a directory that builds share: each is whole or not there, and stays while somebody uses it.

    <root>/<kind>/<name>/              an entry; its other files are its kind's affair
                        /entry.json    its size on disk in bytes ("size"), and what its kind notes
                        /lock          locked shared while the entry is used; its mtime is the last use
    <root>/partial/<kind>.<name>/      an entry that is being made, or was when its build was killed
                  /<kind>.<name>.lock  locked exclusively by whoever makes it
                  /removed.<random>/   an entry that is being removed

An entry is made under `partial` and renamed. A partial one whose lock is free belongs to nobody and is never used.
Entries do not change, but for `lock`. Where the directory cannot be written, entries are only read.
"""

from __future__ import annotations

import errno
import json
import os
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.errors import BuildError
from builder.events import Listener, Message
from builder.isolation.removal import remove_tree
from builder.store.locks import lock_exclusive, lock_new, lock_of, lock_shared

PARTIAL = "partial"
OTHERS = ("names", "mounts")  # directories of the root that hold no entries
_PATIENCE = 120.0  # seconds: a build may be frozen with its node
_POLL = 0.05  # seconds between two looks at a lock: a waiting flock could not be interrupted


def name_of(digest: str) -> str:
    """What entries about `digest` are called, or begin with."""
    return digest.replace(":", "-")


@dataclass(frozen=True, slots=True)
class Entry:
    """A whole entry, which stays as long as its `Entries` is open. `value` is its entry.json."""

    kind: str
    name: str
    path: Path
    value: Mapping[str, Any]


class Entries:
    """The entries of directory `root`. Thread-safe.

    A store that fails never fails the build: what does not work is told once, and there is no entry.
    """

    def __init__(self, root: Path, listener: Listener) -> None:
        self.root = root
        self._listener = listener
        self._lock = threading.Lock()
        self._open: dict[tuple[str, str], tuple[Entry, int]] = {}
        self._told: set[str] = set()
        self._stopped = threading.Event()
        self._writable: bool | None = None  # not tried: entering a user namespace changes it

    @property
    def writable(self) -> bool:
        """Whether entries can be made, as far as is known."""
        if self._writable is None:
            self._writable = os.access(self.root, os.W_OK | os.X_OK)
        return self._writable

    def kinds(self) -> set[str]:
        """The kinds that there may be entries of."""
        try:
            return set(os.listdir(self.root)) - {PARTIAL, *OTHERS}
        except OSError:
            return set()

    def open(self, kind: str, name: str) -> Entry | None:
        """The entry, which nobody removes from now on; None if there is none."""
        with self._lock:
            known = self._open.get((kind, name))
            if known is not None:
                return known[0]
            path = self.root / kind / name
            try:
                descriptor = lock_shared(path / "lock")
            except (FileNotFoundError, NotADirectoryError, PermissionError):
                return None  # or another user's private one
            except OSError as error:
                self._tell("read", f"the store {self.root} cannot be used: {error.strerror}: {path}")
                return None
            if descriptor is None:
                return None  # on its way out
            try:
                entry = _read(kind, name, path)
            except (OSError, ValueError) as error:
                os.close(descriptor)
                self._damaged(kind, name, f"entry.json: {error}")
                return None
            self._open[kind, name] = entry, descriptor
        _touch(descriptor)
        return entry

    def make(self, kind: str, name: str, *, wait: bool) -> Making | Entry | None:
        """The means to make an entry, or the entry when somebody else made it meanwhile.

        With `wait`, whoever makes it now is waited for, but not for ever. None when that is not to be, or nothing can
        be written. Raises BuildError when `stop` is called.
        """
        if not self.writable:
            return None
        partial = self.root / PARTIAL / f"{kind}.{name}"
        patience = time.monotonic() + _PATIENCE
        try:
            partial.parent.mkdir(exist_ok=True)
            while (descriptor := lock_new(lock_of(partial))) is None:
                if not wait:
                    return None
                if self._stopped.wait(_POLL):
                    raise BuildError("the build was stopped")
                if time.monotonic() > patience:
                    self._tell(partial.name, f"{partial} has been in the making for long: it is not waited for")
                    return None
            making = Making(self, kind, name, partial, descriptor)
            entry = self.open(kind, name)
            if entry is not None:
                making.abandon()
                return entry
            try:
                remove_tree(partial)  # of a build that was killed
                partial.mkdir(mode=0o700)
            except BaseException:
                making.abandon()
                raise
            return making
        except OSError as error:
            self.failed(error)
            return None

    def remove(self, entry: Entry, reason: str) -> None:
        """Take away a damaged entry, which this process uses; what others use of it stays for them."""
        with self._lock:
            known = self._open.get((entry.kind, entry.name))
            if known is None or known[0] is not entry:
                return  # another thread was faster, and there may be a better one by now
            del self._open[entry.kind, entry.name]
        os.close(known[1])
        self._damaged(entry.kind, entry.name, reason)

    def forget(self, prefixes: tuple[str, ...]) -> None:
        """Take away all entries of any kind whose name begins with one of `prefixes`; see `remove`."""
        if not self.writable:
            return
        try:
            for kind in self.kinds():
                for name in os.listdir(self.root / kind):
                    if name.startswith(prefixes):
                        with self._lock:
                            known = self._open.pop((kind, name), None)
                        if known is not None:
                            os.close(known[1])
                        discard(self.root, self.root / kind / name)
        except OSError as error:
            self.failed(error)

    def failed(self, error: OSError) -> None:
        """Writing does not work: go on without, and say so once."""
        self._writable = False
        self._tell(
            "write", f"the store {self.root} cannot be written ({error.strerror}); what is missing in it is not kept"
        )

    def stop(self) -> None:
        """Make whoever waits in `make` raise."""
        self._stopped.set()

    def resume(self) -> None:
        """Waiting in `make` is possible again."""
        self._stopped.clear()

    def close(self) -> None:
        """Let others remove the entries that were opened."""
        with self._lock:
            opened = list(self._open.values())
            self._open.clear()
        for _, descriptor in opened:
            os.close(descriptor)

    def _damaged(self, kind: str, name: str, reason: str) -> None:
        self._tell(f"{kind}/{name}", f"the store's {kind}/{name} is damaged and not used: {reason}")
        if self.writable:
            try:
                discard(self.root, self.root / kind / name)
            except OSError as error:
                self.failed(error)

    def _tell(self, about: str, text: str) -> None:
        if about not in self._told:
            self._told.add(about)
            self._listener.tell(Message(text, "warning"))


class Making:
    """An entry that is being made in `path`, by one thread. Ends with `finish` or `abandon`."""

    def __init__(self, entries: Entries, kind: str, name: str, path: Path, lock: int) -> None:
        self.path = path
        self._entries = entries
        self._kind = kind
        self._name = name
        self._lock = lock
        self._ended = False

    def finish(self, size: int, *, private: bool = False, **value: Any) -> Entry | None:
        """The entry, opened; None, with nothing kept, when the disk says no. `size` is in bytes.

        Other users cannot look into a `private` one.
        """
        final = self._entries.root / self._kind / self._name
        try:
            data = {"kind": self._kind, "name": self._name, "size": size, **value}
            (self.path / "entry.json").write_text(json.dumps(data))
            (self.path / "lock").touch(0o644)
            if not private:
                self.path.chmod(0o755)
            final.parent.mkdir(exist_ok=True)
            _rename(self._entries.root, self.path, final)
        except OSError as error:
            self._entries.failed(error)
            self.abandon()
            return None
        # Opened before the lock is given away: whoever waits for it uses the entry, too.
        entry = self._entries.open(self._kind, self._name)
        self.abandon()
        return entry

    def abandon(self) -> None:
        """Leave nothing behind. Does nothing after `finish`, or when called again."""
        if self._ended:
            return
        self._ended = True
        try:
            remove_tree(self.path)
            os.unlink(lock_of(self.path))
        except FileNotFoundError:
            pass
        except OSError as error:
            self._entries.failed(error)
        finally:
            os.close(self._lock)


def remove_unused(root: Path, path: Path) -> bool:
    """Remove the entry at `path` unless somebody uses it, or it is another user's private one. Raises OSError."""
    try:
        descriptor = lock_exclusive(path / "lock")
    except PermissionError:
        return False
    except (FileNotFoundError, NotADirectoryError):
        descriptor = -1  # without a lock, nobody can use it
    if descriptor is None:
        return False
    try:
        removed = _take_away(root, path)
        if removed is not None:
            remove_tree(removed)
        return removed is not None
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def discard(root: Path, path: Path) -> None:
    """Take `path` away in one step; its files are removed when nobody uses them any more. Raises OSError."""
    removed = _take_away(root, path)
    if removed is not None:
        remove_removed(removed)


def remove_removed(path: Path) -> bool:
    """Remove what `discard` took away, unless it is still used. Raises OSError."""
    try:
        descriptor = lock_exclusive(path / "lock")
    except (FileNotFoundError, NotADirectoryError):
        descriptor = -1  # half removed, or never was an entry
    if descriptor is None:
        return False
    try:
        remove_tree(path)
    finally:
        if descriptor >= 0:
            os.close(descriptor)
    return True


def remove_dead_partial(path: Path) -> bool:
    """Remove a partial entry whose maker is gone. Raises OSError."""
    descriptor = lock_new(lock_of(path))
    if descriptor is None:
        return False
    try:
        remove_tree(path)
        os.unlink(lock_of(path))
    finally:
        os.close(descriptor)
    return True


def _take_away(root: Path, path: Path) -> Path | None:
    """Where `path` is now; None when somebody else was faster."""
    removed = root / PARTIAL / f"removed.{uuid.uuid4().hex}"
    removed.parent.mkdir(exist_ok=True)
    try:
        os.rename(path, removed)
    except FileNotFoundError:
        return None
    return removed


def _read(kind: str, name: str, path: Path) -> Entry:
    """Raises OSError and ValueError."""
    value = json.loads((path / "entry.json").read_bytes())
    if not isinstance(value, dict) or (value.get("kind"), value.get("name")) != (kind, name):
        raise ValueError("it is about something else")
    if type(value.get("size")) is not int:
        raise ValueError("it has no size")
    return Entry(kind, name, path, value)


def _rename(root: Path, partial: Path, final: Path) -> None:
    try:
        os.rename(partial, final)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
        discard(root, final)  # damaged, or it would have been opened
        os.rename(partial, final)


def _touch(lock: int) -> None:
    try:
        os.utime(lock)
    except OSError:
        pass  # a store that can only be read
