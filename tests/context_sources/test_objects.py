"""Trees of objects, from wherever they come."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from builder.errors import ContextError
from context_sources import FetchSettings
from context_sources.objects import IN_PARALLEL, StoredObject, fetch_tree
from context_sources.retry import Body


def test_the_first_object_that_fails_ends_it_all(tmp_path: Path) -> None:
    """What the other threads have in hand is finished, and nothing else is asked for.

    Their objects come only when the thread that failed is gone, which it is after the queue was emptied.
    """
    asked: list[str] = []
    failing: list[threading.Thread] = []
    failed = threading.Event()

    def open_object(stored: StoredObject, offset: int) -> Body:
        asked.append(stored.key)
        if stored.key == "0000" or threading.current_thread() in failing:  # the pool gives a free thread the next job
            failing.append(threading.current_thread())
            failed.set()
            raise ContextError("s3://bucket/0000: 403")
        failed.wait(30)
        failing[0].join(30)
        return Body(iter([b"x"]), 0, 1, stored.version, lambda: None)

    listing = [StoredObject(f"{number:04}", 1, 0, "etag") for number in range(1000)]
    with pytest.raises(ContextError, match="0000: 403"):
        fetch_tree(listing, "", open_object, "s3://bucket/", tmp_path, FetchSettings(environment={}))
    assert "0000" in asked
    assert len(asked) <= IN_PARALLEL
