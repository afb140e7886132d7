"""System calls that the standard library does not have, as functions that raise OSError."""

from __future__ import annotations

import ctypes
import os
import threading

MS_NOSUID, MS_NODEV, MS_NOEXEC = 2, 4, 8
MS_REC, MS_PRIVATE = 16384, 1 << 18
MNT_DETACH = 2
CLONE_FS, CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWPID = 0x200, 0x00020000, 0x10000000, 0x20000000
PR_SET_DUMPABLE = 4
CAP_SYS_ADMIN = 21

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, path: str = "") -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path or None)


def unshare(flags: int) -> None:
    """unshare(2)."""
    _check(_libc.unshare(flags))


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """mount(2)."""
    arguments = (os.fsencode(source), os.fsencode(target), kind.encode() or None)
    _check(_libc.mount(*arguments, ctypes.c_ulong(flags), os.fsencode(data) or None), target)


def mount_from(directory: str, source: str, target: str, kind: str, data: str) -> None:
    """mount(2) with `directory` as the working directory of this one call, so that paths in `data` can be short.

    A thread of its own stops sharing the process's working directory (CLONE_FS) and ends with the call.
    """
    failure: list[OSError] = []

    def work() -> None:
        try:
            unshare(CLONE_FS)
            os.chdir(directory)
            mount(source, target, kind, data=data)
        except OSError as error:
            failure.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]


def unmount(target: str) -> None:
    """umount2(2), lazily: what is still open stays usable until it is closed."""
    _check(_libc.umount2(os.fsencode(target), MNT_DETACH), target)


def hide_from_tracers() -> None:
    """prctl(PR_SET_DUMPABLE, 0): processes of the same user cannot read this one's memory, environment or root."""
    _check(_libc.prctl(PR_SET_DUMPABLE, ctypes.c_ulong(0), 0, 0, 0))


def effective_capabilities() -> frozenset[int]:
    """The numbers of linux/capability.h that this process has."""
    with open("/proc/self/status", encoding="ascii") as status:
        for line in status:
            if line.startswith("CapEff:"):
                value = int(line.split()[1], 16)
                return frozenset(number for number in range(64) if value >> number & 1)
    return frozenset()


def release_free_memory() -> None:
    """Give the kernel back what was freed (malloc_trim(3)); where libc has no such call, as musl, nothing happens."""
    trim = getattr(_libc, "malloc_trim", None)
    if trim is not None:
        trim(ctypes.c_size_t(0))
