"""Work that somebody no longer wants, and how those who do it hear of that."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from builder.errors import BuildError


def check_wanted(stopped: Callable[[], bool]) -> None:
    """Raise BuildError when `stopped` says that the work under way is no longer wanted."""
    if stopped():
        raise BuildError("the build was stopped")


class Stopping:
    """Whether the work under way is to end soon: a call says so. Thread-safe.

    Whoever works looks at it now and then, for each chunk of a stream, say; whoever waits for something gives a
    function that ends the waiting.
    """

    def __init__(self) -> None:
        self._asked = threading.Event()
        self._lock = threading.RLock()
        self._ends: list[Callable[[], object]] = []

    def __call__(self) -> bool:
        return self._asked.is_set()

    def check(self) -> None:
        """Raise BuildError when the work is to end."""
        check_wanted(self)

    def ask(self) -> None:
        """The work is to end. Returns when every function that `calling` was given has returned."""
        self._asked.set()
        with self._lock:
            for end in tuple(self._ends):
                end()

    @contextmanager
    def calling(self, end: Callable[[], object]) -> Iterator[None]:
        """While inside, `ask` calls `end`, from another thread; leaving waits until that has returned."""
        with self._lock:
            self._ends.append(end)
        try:
            self.check()
            yield
        finally:
            with self._lock:
                self._ends.remove(end)
