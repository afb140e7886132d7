"""Values that many threads ask for and one works out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Once(Generic[Key, Value]):
    """For each key a value, made by whoever asks first; others wait for it. An error is kept like a value.

    Different keys are worked out side by side. Thread-safe.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._futures: dict[Key, Future[Value]] = {}

    def get(self, key: Key, make: Callable[[], Value]) -> Value:
        """The value of `key`. Raises what `make` raises, now or when it was first called."""
        with self._lock:
            future = self._futures.get(key)
            mine = future is None
            if future is None:
                future = self._futures[key] = Future()
        if mine:
            try:
                future.set_result(make())
            except BaseException as error:
                future.set_exception(error)
        return future.result()

    def forget(self, key: Key) -> None:
        """Let the next who asks for `key` work it out anew."""
        with self._lock:
            self._futures.pop(key, None)

    def known(self, key: Key) -> Value | None:
        """The value of `key` where it is there without waiting, and is no error."""
        with self._lock:
            future = self._futures.get(key)
        if future is None or not future.done() or future.exception() is not None:
            return None
        return future.result()
