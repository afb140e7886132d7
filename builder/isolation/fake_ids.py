"""One user who passes for many: answers to a step's privileged calls where the kernel has only one id to give.

chown succeeds and is recorded for the layer; setuid and its kin succeed and are remembered, so that getuid and its
kin agree; mknod makes a file that is recorded as a device. What the kernel itself decides by id (who may read
which file) stays as it is: everybody is root. stat(2) still shows files as root's.
"""

from __future__ import annotations

import os
import select
import socket
import stat
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from builder.isolation import Process, seccomp
from builder.isolation.credentials import Credentials, Identities, Ids
from builder.isolation.owners import RecordedOwners
from builder.isolation.seccomp import Question
from builder.rootfs.paths import open_in_root

_AT_FDCWD, _AT_SYMLINK_NOFOLLOW, _AT_EMPTY_PATH = -100, 0x100, 0x1000
_PATH_MAX = 4096
_MASK = 0xFFFFFFFF

# Returns the call's value, or None for "let the kernel do it"; raises OSError for what the call fails with.
_Handler = Callable[[Question], int | None]


@contextmanager
def faked_ids(process: Process, root: Path, owners: RecordedOwners) -> Iterator[int]:
    """Answer for `process` in `root` inside the context; the value is the socket that the sandbox program gets."""
    ours, theirs = socket.socketpair()
    thread = threading.Thread(target=_serve, args=(ours, process, root, owners), daemon=True)
    thread.start()
    try:
        yield theirs.fileno()
    finally:
        theirs.close()
        thread.join()  # the listener ends with the last process that has the filter


def _serve(channel: socket.socket, process: Process, root: Path, owners: RecordedOwners) -> None:
    with channel:
        _, descriptors, _, _ = socket.recv_fds(channel, 1, 1)
    if not descriptors:
        return  # the sandbox ended before it had a filter
    listener = descriptors[0]
    try:
        _Supervisor(listener, process, root, owners).serve()
    finally:
        os.close(listener)


class _Supervisor:
    def __init__(self, listener: int, process: Process, root: Path, owners: RecordedOwners) -> None:
        self._listener = listener
        self._device = os.stat(root).st_dev
        self._owners = owners
        initial = Credentials(Ids.all(process.uid), Ids.all(process.gid), process.groups)
        self._identities = Identities(initial, owners.read)
        own = {
            **dict.fromkeys(("chown", "lchown", "fchown", "fchownat"), self._chown),
            **dict.fromkeys(("mknod", "mknodat"), self._mknod),
            **dict.fromkeys(_SETTERS, self._set_ids),
            **dict.fromkeys(("getuid", "geteuid", "getgid", "getegid"), self._get_id),
            **dict.fromkeys(("getresuid", "getresgid"), self._get_all),
            "setgroups": self._set_groups,
            "getgroups": self._get_groups,
            "capset": lambda question: 0,
        }
        self._names = seccomp.system_calls()
        self._handlers: dict[int, _Handler] = {number: own[name] for number, name in self._names.items()}

    def serve(self) -> None:
        """Answer until nobody is left to ask."""
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        while True:
            (_, events), *_ = poll.poll()
            if not events & select.POLLIN:
                return
            question = seccomp.receive(self._listener)
            if question is not None:
                self._answer(question)

    def _answer(self, question: Question) -> None:
        try:
            value = self._handlers[question.number](question)
        except OSError as error:
            seccomp.answer(self._listener, question, error=error.errno or 1)
            return
        if value is None:
            seccomp.go_on(self._listener, question)
        else:
            seccomp.answer(self._listener, question, value)

    # ---- owners of files

    def _chown(self, question: Question) -> int | None:
        name, arguments = self._names[question.number], question.arguments
        if name == "fchown":
            uid, gid = arguments[1:3]
            descriptor = os.open(f"/proc/{question.thread}/fd/{arguments[0] & _MASK}", os.O_PATH | os.O_CLOEXEC)
        elif name == "fchownat":
            uid, gid = arguments[2:4]
            flags = arguments[4]
            follow = not flags & _AT_SYMLINK_NOFOLLOW
            descriptor = self._open(question, arguments[0], arguments[1], follow, bool(flags & _AT_EMPTY_PATH))
        else:
            uid, gid = arguments[1:3]
            descriptor = self._open(question, _AT_FDCWD, arguments[0], follow=name == "chown")
        try:
            self._record(descriptor, uid & _MASK, gid & _MASK)
        finally:
            os.close(descriptor)
        return 0

    def _record(self, descriptor: int, uid: int, gid: int) -> None:
        path = f"/proc/self/fd/{descriptor}"
        # With nothing to change the kernel still does what chown does besides: setuid bits and capabilities go, and
        # overlayfs copies the file into the upper directory, which is how it gets into the layer.
        os.chown(path, -1, -1)
        if os.fstat(descriptor).st_dev == self._device:
            self._owners.record(path, _signed(uid), _signed(gid))

    def _mknod(self, question: Question) -> int | None:
        arguments = question.arguments
        if self._names[question.number] == "mknod":
            arguments = (_AT_FDCWD, *arguments)
        directory, address, mode, device = arguments[:4]
        if not (stat.S_ISCHR(mode) or stat.S_ISBLK(mode)):
            return None
        path = self._read_path(question, address)
        parent_path, _, name = path.rstrip("/").rpartition("/")
        parent = self._open_path(question, directory, parent_path or ("/" if path.startswith("/") else "."), True)
        try:
            flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
            os.close(os.open(name, flags, 0o600, dir_fd=parent))
            kept = stat.S_IMODE(mode) & ~_umask(question.thread)
            location = f"/proc/self/fd/{parent}/{name}"
            os.chmod(location, kept)
            self._owners.record_device(location, mode, device & _MASK)
        finally:
            os.close(parent)
        return 0

    def _open(self, question: Question, directory: int, address: int, follow: bool, may_be_empty: bool = False) -> int:
        """An O_PATH descriptor of the file that a call of `question` names."""
        path = self._read_path(question, address)
        if not path and not may_be_empty:
            raise FileNotFoundError(2, "")
        return self._open_path(question, directory, path, follow)

    def _open_path(self, question: Question, directory: int, path: str, follow: bool) -> int:
        of = f"/proc/{question.thread}"
        number = _signed(directory & _MASK)
        base = f"{of}/cwd" if number == _AT_FDCWD else f"{of}/fd/{number}"
        if not path:
            return os.open(base, os.O_PATH | os.O_CLOEXEC)
        if not path.startswith("/"):
            # Both as the mount namespace of the process has them; with a changed root, that is a prefix.
            inside, root_path = os.readlink(base), os.readlink(f"{of}/root").rstrip("/")
            path = f"{inside.removeprefix(root_path)}/{path}"
        root = os.open(f"{of}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return open_in_root(root, path, os.O_PATH | (0 if follow else os.O_NOFOLLOW))
        finally:
            os.close(root)

    # ---- memory of the process

    def _read_path(self, question: Question, address: int) -> str:
        with open(f"/proc/{question.thread}/mem", "rb", buffering=0) as memory:
            data = b""
            while b"\0" not in data and len(data) < _PATH_MAX:
                # Never across a page's end at once: the next page need not exist.
                memory.seek(address + len(data))
                data += memory.read(4096 - (address + len(data)) % 4096)
        if not seccomp.still_asked(self._listener, question):
            raise ProcessLookupError(3, "")
        return os.fsdecode(data.partition(b"\0")[0])

    def _write(self, question: Question, address: int, data: bytes) -> None:
        with open(f"/proc/{question.thread}/mem", "r+b", buffering=0) as memory:
            if not seccomp.still_asked(self._listener, question):
                raise ProcessLookupError(3, "")
            memory.seek(address)
            memory.write(data)

    # ---- identities

    def _set_ids(self, question: Question) -> int:
        name = self._names[question.number]
        before = self._identities.of(question.thread)
        numbers = [argument & _MASK for argument in question.arguments]
        ids = before.users if name.endswith("uid") else before.groups
        after = _SETTERS[name](ids, numbers, before.privileged)
        changed = replace(before, users=after) if name.endswith("uid") else replace(before, groups=after)
        if changed != before:
            self._identities.change(question.thread, changed)
        return ids.file if name.startswith("setfs") else 0

    def _get_id(self, question: Question) -> int:
        name = self._names[question.number]
        credentials = self._identities.of(question.thread)
        ids = credentials.users if name.endswith("uid") else credentials.groups
        return ids.effective if name.startswith("gete") else ids.real

    def _get_all(self, question: Question) -> int:
        credentials = self._identities.of(question.thread)
        ids = credentials.users if self._names[question.number] == "getresuid" else credentials.groups
        for address, number in zip(question.arguments[:3], (ids.real, ids.effective, ids.saved), strict=True):
            self._write(question, address, struct.pack("=I", number))
        return 0

    def _set_groups(self, question: Question) -> int:
        count, address = question.arguments[0] & _MASK, question.arguments[1]
        before = self._identities.of(question.thread)
        if not before.privileged:
            raise PermissionError(1, "")
        if count > 65536:
            raise OSError(22, "")
        with open(f"/proc/{question.thread}/mem", "rb", buffering=0) as memory:
            memory.seek(address)
            groups = struct.unpack(f"={count}I", memory.read(4 * count)) if count else ()
        self._identities.change(question.thread, replace(before, supplementary=groups))
        return 0

    def _get_groups(self, question: Question) -> int:
        size, address = question.arguments[0] & _MASK, question.arguments[1]
        groups = self._identities.of(question.thread).supplementary
        if size:
            if size < len(groups):
                raise OSError(22, "")
            self._write(question, address, struct.pack(f"={len(groups)}I", *groups))
        return len(groups)


_SETTERS: dict[str, Callable[[Ids, list[int], bool], Ids]] = {
    "setuid": lambda ids, new, privileged: ids.set(new[0], privileged),
    "setgid": lambda ids, new, privileged: ids.set(new[0], privileged),
    "setreuid": lambda ids, new, privileged: ids.set_both(new[0], new[1], privileged),
    "setregid": lambda ids, new, privileged: ids.set_both(new[0], new[1], privileged),
    "setresuid": lambda ids, new, privileged: ids.set_all(new[0], new[1], new[2], privileged),
    "setresgid": lambda ids, new, privileged: ids.set_all(new[0], new[1], new[2], privileged),
    "setfsuid": lambda ids, new, privileged: ids.set_file(new[0], privileged),
    "setfsgid": lambda ids, new, privileged: ids.set_file(new[0], privileged),
}


def _signed(number: int) -> int:
    return number - (1 << 32) if number & 1 << 31 else number


def _umask(thread: int) -> int:
    with open(f"/proc/{thread}/status", "rb") as lines:
        for line in lines:
            if line.startswith(b"Umask:"):
                return int(line.split()[1], 8)
    return 0o022
