"""Lets one part of a pipeline work while the next one does."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

DEPTH = 8


@dataclass(frozen=True, slots=True)
class End:
    """The producer is done: properly, or with `error`."""

    error: BaseException | None = None


@contextmanager
def read_ahead(chunks: Iterable[bytes], depth: int = DEPTH) -> Iterator[Iterator[bytes]]:
    """`chunks`, read by a thread of their own, at most `depth` of them ahead.

    What `chunks` raises is raised here. Leaving early stops the thread at its next chunk; it does not wait for a
    network that is silent.
    """
    ready: queue.Queue[bytes | End] = queue.Queue(depth)
    stop = threading.Event()

    def offer(item: bytes | End) -> None:
        while not stop.is_set():
            try:
                ready.put(item, timeout=0.1)
            except queue.Full:
                continue
            return

    def produce() -> None:
        try:
            for chunk in chunks:
                offer(chunk)
                if stop.is_set():
                    return
            offer(End())
        except BaseException as error:
            offer(End(error))

    def consume() -> Iterator[bytes]:
        while not isinstance(item := ready.get(), End):
            yield item
        if item.error is not None:
            raise item.error

    thread = threading.Thread(target=produce, name="context-read-ahead", daemon=True)
    thread.start()
    try:
        yield consume()
    finally:
        stop.set()
        thread.join(timeout=1)
