"""SIGTERM and SIGINT end the build in an orderly way: an exception in the main thread, once."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(KeyboardInterrupt):
    """A signal asks Limpet to end. Raised in the main thread so that every context manager cleans up."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    @property
    def exit_code(self) -> int:
        """As a shell reports a process that a signal ended: 130 for SIGINT, 143 for SIGTERM."""
        return 128 + self.number


@contextmanager
def ending_signals_raise() -> Iterator[None]:
    """While inside, the first ending signal raises Interrupted in the main thread; further ones change nothing.

    An impatient second Ctrl-C must not stop the cleaning half-way: mounts would stay. A SIGHUP that was ignored
    when Limpet started (nohup) stays ignored.
    """
    fired = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal fired
        if not fired:
            fired = True
            raise Interrupted(number)

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
            signal.signal(number, signal.SIG_IGN if fired else before[number])
