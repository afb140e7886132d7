"""The seccomp filter that hands questions of identity to Limpet, and the messages in which the kernel asks them."""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from builder.errors import IsolationError

# linux/audit.h and asm/unistd.h: what the kernel refuses in a user namespace with one id, or answers with that id.
_ARCHITECTURES: Mapping[str, tuple[int, Mapping[str, int]]] = {
    "x86_64": (
        0xC000003E,
        {
            "chown": 92,
            "fchown": 93,
            "lchown": 94,
            "fchownat": 260,
            "mknod": 133,
            "mknodat": 259,
            "capset": 126,
            "setuid": 105,
            "setgid": 106,
            "setreuid": 113,
            "setregid": 114,
            "setresuid": 117,
            "setresgid": 119,
            "setfsuid": 122,
            "setfsgid": 123,
            "setgroups": 116,
            "getgroups": 115,
            "getuid": 102,
            "geteuid": 107,
            "getresuid": 118,
            "getgid": 104,
            "getegid": 108,
            "getresgid": 120,
        },
    ),
    "aarch64": (
        0xC00000B7,
        {
            "fchown": 55,
            "fchownat": 54,
            "mknodat": 33,
            "capset": 91,
            "setuid": 146,
            "setgid": 144,
            "setreuid": 145,
            "setregid": 143,
            "setresuid": 147,
            "setresgid": 149,
            "setfsuid": 151,
            "setfsgid": 152,
            "setgroups": 159,
            "getgroups": 158,
            "getuid": 174,
            "geteuid": 175,
            "getresuid": 148,
            "getgid": 176,
            "getegid": 177,
            "getresgid": 150,
        },
    ),
}

# linux/bpf_common.h and linux/seccomp.h
_LOAD_WORD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_RET_ALLOW, _RET_USER_NOTIF = 0x7FFF0000, 0x7FC00000
_OFFSET_NUMBER, _OFFSET_ARCHITECTURE = 0, 4  # in struct seccomp_data

_NOTIF = struct.Struct("=QIIiIQ6Q")  # struct seccomp_notif
_RESPONSE = struct.Struct("=QqiI")  # struct seccomp_notif_resp
_NOTIF_RECV, _NOTIF_SEND, _NOTIF_ID_VALID = 0xC0502100, 0xC0182101, 0x40082102
_CONTINUE = 1  # SECCOMP_USER_NOTIF_FLAG_CONTINUE


def system_calls() -> Mapping[int, str]:
    """Number -> name of what the filter selects on this machine. Raises IsolationError for unknown machines."""
    return {number: name for name, number in _architecture()[1].items()}


def filter_program() -> list[list[int]]:
    """struct sock_filter lines: the selected calls of this machine's own kind ask, everything else goes on."""
    architecture, numbers = _architecture()
    count = len(numbers)
    program = [
        [_LOAD_WORD, 0, 0, _OFFSET_ARCHITECTURE],
        [_JUMP_IF_EQUAL, 0, count + 1, architecture],
        [_LOAD_WORD, 0, 0, _OFFSET_NUMBER],
    ]
    program += [[_JUMP_IF_EQUAL, count - place, 0, number] for place, number in enumerate(numbers.values())]
    return [*program, [_RETURN, 0, 0, _RET_ALLOW], [_RETURN, 0, 0, _RET_USER_NOTIF]]


def _architecture() -> tuple[int, Mapping[str, int]]:
    machine = os.uname().machine
    if machine not in _ARCHITECTURES:
        raise IsolationError(f"no seccomp filter is known for {machine} machines", "give the user subordinate ids")
    return _ARCHITECTURES[machine]


@dataclass(frozen=True, slots=True)
class Question:
    """A system call that waits for its answer. `thread` is an id in this process's pid namespace."""

    id: int
    thread: int
    number: int
    arguments: tuple[int, ...]


def receive(listener: int) -> Question | None:
    """The next question; None when the thread that asked it is gone. Raises OSError when the listener is closed."""
    buffer = bytearray(_NOTIF.size)
    try:
        fcntl.ioctl(listener, _NOTIF_RECV, buffer)
    except FileNotFoundError:
        return None
    number, thread, _, call, _, _, *arguments = _NOTIF.unpack(buffer)
    return Question(number, thread, call, tuple(arguments))


def still_asked(listener: int, question: Question) -> bool:
    """Whether the thread still waits: what was read from /proc/THREAD before is then its own."""
    try:
        fcntl.ioctl(listener, _NOTIF_ID_VALID, struct.pack("=Q", question.id))
        return True
    except FileNotFoundError:
        return False


def answer(listener: int, question: Question, value: int = 0, error: int = 0) -> None:
    """Let the call return `value`, or fail with errno `error`."""
    _send(listener, _RESPONSE.pack(question.id, value, -error, 0))


def go_on(listener: int, question: Question) -> None:
    """Let the kernel carry out the call after all."""
    _send(listener, _RESPONSE.pack(question.id, 0, 0, _CONTINUE))


def _send(listener: int, response: bytes) -> None:
    try:
        fcntl.ioctl(listener, _NOTIF_SEND, response)
    except FileNotFoundError:
        pass  # the thread was killed meanwhile
