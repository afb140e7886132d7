"""SIGINT, SIGTERM and SIGHUP end a command in an orderly way.

Short commands get an exception in the main thread. What makes files, mounts or transfers does not: an exception at any
moment could come between making something and noting that it is to be removed. It works in a thread of its own, which
no signal disturbs, and is asked to end.
"""

from __future__ import annotations

import os
import signal
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from types import FrameType
from typing import NoReturn, TypeVar

from builder.isolation.launch import GRACE, KILL_NOW
from builder.stopping import Stopping

Result = TypeVar("Result")

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_AGAIN = 1.0  # seconds: what comes sooner is the same Ctrl-C, passed on by a program that started Limpet
_SWEEP = 0.1  # seconds between two looks for connections that were opened meanwhile
_PATIENCE = GRACE + 5.0  # seconds until what does not end is left alone


class Interrupted(KeyboardInterrupt):
    """A signal asks Limpet to end. `abandoned`: some thread works on and must not be waited for."""

    def __init__(self, number: int, *, abandoned: bool = False) -> None:
        super().__init__()
        self.number = number
        self.abandoned = abandoned

    @property
    def exit_code(self) -> int:
        """As a shell reports a process that a signal ended: 130 for SIGINT, 143 for SIGTERM."""
        return 128 + self.number


@contextmanager
def ending_signals_raise() -> Iterator[None]:
    """While inside, the first ending signal raises Interrupted in the main thread; a later one ends the process.

    A SIGHUP that was ignored when Limpet started (nohup) stays ignored.
    """
    first = _First()

    def handle(number: int, frame: FrameType | None) -> None:
        if first.note(number):
            raise Interrupted(number)

    with _handled(handle, first):
        yield


class HeldSignals:
    """While inside, no signal disturbs the main thread; `carry_out` hears of them."""

    def __init__(self) -> None:
        self._first = _First()
        self._woken: SimpleQueue[None] = SimpleQueue()  # its put may be called from a signal handler
        self._handled = _handled(self._handle, self._first)

    def __enter__(self) -> HeldSignals:
        self._handled.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._handled.__exit__(None, None, None)

    def carry_out(self, work: Callable[[], Result], stopping: Stopping) -> Result:
        """`work()` in another thread, which `stopping` asks to end when a signal comes.

        Its connections are broken off then, and the programs that it runs get a SIGTERM. Raises what `work` raises,
        or Interrupted when it did not come to its end. Work that does not end in time is left alone, without the
        programs.
        """
        done = Future[Result]()

        def call() -> None:
            try:
                done.set_result(work())
            except BaseException as error:
                done.set_exception(error)
            self._woken.put(None)

        if self._first.number:
            raise Interrupted(self._first.number)
        threading.Thread(target=call, name="work", daemon=True).start()
        self._woken.get()
        if not done.done():
            self._end(stopping, done)
        if self._first.number and (not done.done() or done.exception() is not None):
            raise Interrupted(self._first.number, abandoned=not done.done())
        return done.result()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._first.note(number):
            self._woken.put(None)

    def _end(self, stopping: Stopping, done: Future[Result]) -> None:
        deadline = time.monotonic() + _PATIENCE
        threading.Thread(target=stopping.ask, name="stop", daemon=True).start()
        told: set[int] = set()
        while not done.done() and time.monotonic() < deadline:
            _break_connections()
            new = _children() - told
            _signal(new, signal.SIGTERM)
            told |= new
            with suppress(Empty):
                self._woken.get(timeout=_SWEEP)
        if not done.done():
            _signal(_children(), KILL_NOW)


class _First:
    """The first ending signal, `number`; 0 as long as none came."""

    def __init__(self) -> None:
        self.number = 0
        self._when = 0.0

    def note(self, number: int) -> bool:
        """Whether signal `number` is the first. Does not return when it shows that somebody is impatient."""
        if not self.number:
            self.number, self._when = number, time.monotonic()
            return True
        if time.monotonic() - self._when > _AGAIN:
            _die(number)
        return False


@contextmanager
def _handled(handle: Callable[[int, FrameType | None], None], first: _First) -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in _ENDING}
    caught = [number for number in _ENDING if not (number == signal.SIGHUP and before[number] == signal.SIG_IGN)]
    for number in caught:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number in caught:
            # Not the old handlers once a signal came: the interpreter is about to leave, and a further Ctrl-C
            # would only print a traceback.
            signal.signal(number, signal.SIG_IGN if first.number else before[number])


def _die(number: int) -> NoReturn:
    """End this process now, and every program that it started."""
    _signal(_children(), KILL_NOW)
    with suppress(OSError):
        os.write(2, b"error: ended at once by a second signal; the work directory may be left behind\n")
    os._exit(128 + number)


def _signal(processes: set[int], number: int) -> None:
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process, number)


def _children() -> set[int]:
    """The processes that threads of this one started, and that nobody has waited for yet."""
    found: set[int] = set()
    for task in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):
            found.update(map(int, task.read_text().split()))
    return found


def _break_connections() -> None:
    """End every TCP connection, so that nobody who sends or receives waits: no library offers that for all of them."""
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            if not stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                continue
            # The copy is closed at once, the number may be another file's by now.
            with socket.socket(fileno=os.dup(int(name))) as connection:
                if connection.family in (socket.AF_INET, socket.AF_INET6) and connection.type == socket.SOCK_STREAM:
                    connection.shutdown(socket.SHUT_RDWR)
