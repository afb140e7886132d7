"""Who the processes of a step believe to be, where the kernel knows one user only."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

KEEP = 0xFFFFFFFF  # -1: leave as it is
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Ids:
    """Real, effective, saved and file system id of a process: of users, or of groups."""

    real: int
    effective: int
    saved: int
    file: int

    @classmethod
    def all(cls, number: int) -> Ids:
        return cls(number, number, number, number)

    def set(self, number: int, privileged: bool) -> Ids:
        """setuid(2). Raises PermissionError."""
        if privileged:
            return Ids.all(number)
        if number not in (self.real, self.saved):
            raise PermissionError(errno.EPERM, "setuid")
        return replace(self, effective=number, file=number)

    def set_both(self, real: int, effective: int, privileged: bool) -> Ids:
        """setreuid(2). Raises PermissionError."""
        if not privileged and (
            real not in (KEEP, self.real, self.effective)
            or effective not in (KEEP, self.real, self.effective, self.saved)
        ):
            raise PermissionError(errno.EPERM, "setreuid")
        new_real = self.real if real == KEEP else real
        new_effective = self.effective if effective == KEEP else effective
        save = real != KEEP or (effective != KEEP and effective != self.real)
        return Ids(new_real, new_effective, new_effective if save else self.saved, new_effective)

    def set_all(self, real: int, effective: int, saved: int, privileged: bool) -> Ids:
        """setresuid(2). Raises PermissionError."""
        allowed = (KEEP, self.real, self.effective, self.saved)
        if not privileged and any(number not in allowed for number in (real, effective, saved)):
            raise PermissionError(errno.EPERM, "setresuid")
        new_effective = self.effective if effective == KEEP else effective
        return Ids(
            self.real if real == KEEP else real,
            new_effective,
            self.saved if saved == KEEP else saved,
            new_effective,
        )

    def set_file(self, number: int, privileged: bool) -> Ids:
        """setfsuid(2), which never fails."""
        if privileged or number in (self.real, self.effective, self.saved, self.file):
            return replace(self, file=number)
        return self


Kind = Literal["users", "groups"]


@dataclass(frozen=True, slots=True)
class Credentials:
    """A process's identity. Whoever is user 0 effectively may become anybody."""

    users: Ids
    groups: Ids
    supplementary: tuple[int, ...] = ()

    @property
    def privileged(self) -> bool:
        return self.users.effective == 0


@dataclass(slots=True)
class _Process:
    """What is known of one process: `history` has (seconds since boot, credentials), oldest first."""

    history: list[tuple[float, Credentials]]
    program: tuple[int, int] = (0, 0)  # device and inode of what it executes
    groups: set[int] = field(default_factory=set)

    @property
    def now(self) -> Credentials:
        return self.history[-1][1]

    def at(self, moment: float) -> Credentials:
        earlier = [credentials for time, credentials in self.history if time <= moment]
        return earlier[-1] if earlier else self.history[0][1]


class Identities:
    """The credentials of all processes of one step, `initial` for the first. Used by one thread.

    The kernel does not tell of fork and exec; both are found out when a process asks: a process starts with what
    its parent was when it started, and a setuid program gives the identity of its `owner`.
    """

    def __init__(self, initial: Credentials, owner: Callable[[str], tuple[int, int]]) -> None:
        self._initial = initial
        self._owner = owner
        self._processes: dict[tuple[int, int], _Process] = {}

    def of(self, thread: int) -> Credentials:
        """Who the process of `thread` is now."""
        return self._find(thread).now

    def change(self, thread: int, credentials: Credentials) -> None:
        """From now on the process of `thread` is somebody else."""
        self._find(thread).history.append((time.clock_gettime(time.CLOCK_BOOTTIME), credentials))

    def _find(self, thread: int) -> _Process:
        process, _, started = _status(thread)
        known = self._processes.get((process, started))
        if known is None:
            known = _Process([(0.0, self._inherited(process))])
            self._processes[process, started] = known
        self._notice_exec(process, known)
        return known

    def _inherited(self, process: int) -> Credentials:
        """What the nearest known ancestor was when the process below it started."""
        while True:
            try:
                _, parent, started = _status(process)
                _, _, parent_started = _status(parent)
            except OSError:
                return self._initial  # above everything that this process sees
            known = self._processes.get((parent, parent_started))
            if known is not None:
                # One tick more: the kernel rounds down.
                return known.at((started + 1) / _TICKS)
            process = parent

    def _notice_exec(self, process: int, known: _Process) -> None:
        try:
            status = os.stat(f"/proc/{process}/exe")
        except OSError:
            return  # it has just ended
        program = (status.st_dev, status.st_ino)
        if program == known.program:
            return
        known.program = program
        credentials = known.now
        users = replace(credentials.users, saved=credentials.users.effective)
        groups = replace(credentials.groups, saved=credentials.groups.effective)
        if status.st_mode & (stat.S_ISUID | stat.S_ISGID):
            uid, gid = self._owner(f"/proc/{process}/exe")
            if status.st_mode & stat.S_ISUID:
                users = replace(users, effective=uid, saved=uid, file=uid)
            if status.st_mode & stat.S_ISGID and status.st_mode & stat.S_IXGRP:
                groups = replace(groups, effective=gid, saved=gid, file=gid)
        changed = replace(credentials, users=users, groups=groups)
        if changed != credentials:
            known.history.append((time.clock_gettime(time.CLOCK_BOOTTIME), changed))


def _status(thread: int) -> tuple[int, int, int]:
    """(process, parent, ticks since boot at which it started) of a thread. Raises OSError when it is gone."""
    process = parent = 0
    with open(f"/proc/{thread}/status", "rb") as lines:
        for line in lines:
            if line.startswith(b"Tgid:"):
                process = int(line.split()[1])
            elif line.startswith(b"PPid:"):
                parent = int(line.split()[1])
                break
    with open(f"/proc/{process}/stat", "rb") as file:
        # After the command's name in parentheses: state is field 3, starttime field 22.
        return process, parent, int(file.read().rpartition(b")")[2].split()[19])
