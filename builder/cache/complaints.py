"""What goes wrong with a cache is said once."""

from __future__ import annotations

import threading

from builder.events import Listener, Message


class Complaints:
    """The first call is a warning; what goes wrong later is for those who look for it. Thread-safe."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._lock = threading.Lock()
        self._said = False

    def __call__(self, text: str) -> None:
        with self._lock:
            first, self._said = not self._said, True
        self._listener.tell(Message(text, "warning" if first else "debug"))
