"""Entering namespaces: once, and before any thread exists. From then on the program believes that it is root."""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from builder.errors import IsolationError
from builder.isolation import syscalls

INITIAL_USER_NAMESPACE = 0xEFFFFFFD  # PROC_USER_INIT_INO of linux/proc_ns.h
IdMap = tuple[tuple[int, int, int], ...]  # (inside, outside, count), as /proc/PID/uid_map has them


@dataclass(frozen=True, slots=True)
class Entered:
    """What this process is now: `uid_map` and `gid_map` are its own.

    `initial`: it is in the machine's own user namespace, where trusted.* attributes and mknod work.
    """

    uid_map: IdMap
    gid_map: IdMap
    initial: bool

    @property
    def single_id(self) -> bool:
        """Whether root is the only user there is."""
        return sum(count for _, _, count in self.uid_map) == 1


def id_map(kind: str) -> IdMap:
    """This process's `uid_map` or `gid_map`."""
    lines = Path(f"/proc/self/{kind}").read_text().splitlines()
    return tuple((int(a), int(b), int(c)) for a, b, c in (line.split() for line in lines))


def enter() -> Entered:
    """Get a mount namespace, by way of a user namespace where that is needed. Raises IsolationError with the reason.

    After an error this process may be in a half-made user namespace: try in a child first.
    """
    if os.geteuid() != 0 or not _enter_mount_namespace():
        _enter_user_namespace()
    syscalls.mount("none", "/", flags=syscalls.MS_REC | syscalls.MS_PRIVATE)
    initial = os.stat("/proc/self/ns/user").st_ino == INITIAL_USER_NAMESPACE
    return Entered(id_map("uid_map"), id_map("gid_map"), initial)


def _enter_mount_namespace() -> bool:
    if syscalls.CAP_SYS_ADMIN not in syscalls.effective_capabilities():
        return False
    try:
        syscalls.unshare(syscalls.CLONE_NEWNS)
    except OSError:
        return False  # a seccomp profile that forbids it regardless of capabilities
    return True


def _enter_user_namespace() -> None:
    mapper = _mapper()
    ready, ready_end = os.pipe()
    pid = os.getpid()
    # The maps have to be written from outside, so this child stays there.
    child = os.fork()
    if child == 0:
        os.close(ready_end)
        failed = 1
        try:
            if os.read(ready, 1):
                mapper(pid)
                failed = 0
        finally:
            os._exit(failed)
    os.close(ready)
    failure = None
    try:
        syscalls.unshare(syscalls.CLONE_NEWUSER | syscalls.CLONE_NEWNS)
        os.write(ready_end, b"g")
    except OSError as error:
        failure = error
    os.close(ready_end)
    _, status = os.waitpid(child, 0)
    if failure is not None:
        raise IsolationError(
            f"a user namespace cannot be made here: {failure.strerror}",
            "the pod's seccomp profile, or the node's user.max_user_namespaces or AppArmor settings, forbid it",
        )
    if status != 0:
        raise IsolationError("the ids of a user namespace could not be mapped")


def _mapper() -> Callable[[int], None]:
    """The function that, from outside, gives a process in a new user namespace its ids."""
    uid, gid = os.geteuid(), os.getegid()
    if uid == 0:
        uids, gids = _same(id_map("uid_map")), _same(id_map("gid_map"))
        return lambda pid: _write_maps(pid, uids, gids)
    ranges = subordinate_ids(uid)
    if ranges is not None:
        uids = ((0, uid, 1), *ranges[0])
        gids = ((0, gid, 1), *ranges[1])
        return lambda pid: _run_map_programs(pid, uids, gids)
    return lambda pid: _write_single(pid, uid, gid)


def _same(ids: IdMap) -> IdMap:
    """Every id that exists here, under its own number."""
    return tuple((inside, inside, count) for inside, _, count in ids)


def _text(ids: IdMap) -> str:
    return "".join(f"{inside} {outside} {count}\n" for inside, outside, count in ids)


def _write_maps(pid: int, uids: IdMap, gids: IdMap) -> None:
    Path(f"/proc/{pid}/uid_map").write_text(_text(uids))
    Path(f"/proc/{pid}/gid_map").write_text(_text(gids))


def _run_map_programs(pid: int, uids: IdMap, gids: IdMap) -> None:
    for program, ids in (("newuidmap", uids), ("newgidmap", gids)):
        arguments = [str(number) for line in ids for number in line]
        subprocess.run([program, str(pid), *arguments], check=True, capture_output=True)


def _write_single(pid: int, uid: int, gid: int) -> None:
    # Without privilege outside, the kernel takes a group map only after setgroups is given up (user_namespaces(7)).
    Path(f"/proc/{pid}/setgroups").write_text("deny")
    _write_maps(pid, ((0, uid, 1),), ((0, gid, 1),))


def subordinate_ids(uid: int) -> tuple[IdMap, IdMap] | None:
    """The ranges of /etc/subuid and /etc/subgid that `uid` may use, mapped from 1 on; None unless both exist."""
    names = {str(uid)}
    try:
        names.add(pwd.getpwuid(uid).pw_name)
    except KeyError:
        pass  # an arbitrary uid, as OpenShift gives
    found = []
    for file in ("/etc/subuid", "/etc/subgid"):
        inside, ranges = 1, []
        try:
            lines = Path(file).read_text().splitlines()
        except OSError:
            return None
        for line in lines:
            name, _, rest = line.partition(":")
            start, _, count = rest.partition(":")
            if name in names and start.isdigit() and count.strip().isdigit() and int(count):
                ranges.append((inside, int(start), int(count)))
                inside += int(count)
        if not ranges:
            return None
        found.append(tuple(ranges))
    return found[0], found[1]
