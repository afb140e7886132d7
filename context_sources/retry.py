"""Trying again: with waits that grow, and for streams from where they broke off."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from context_sources.source import FetchSettings, Retry

Result = TypeVar("Result")


def waits(retry: Retry) -> Iterator[float]:
    """Seconds to wait before each further attempt, with up to a fifth of randomness."""
    delay = retry.delay
    for _ in range(retry.attempts - 1):
        yield min(delay, retry.longest) * random.uniform(0.8, 1.0)  # noqa: S311 - spreads clients, hides nothing
        delay *= 2


def retried(
    attempt: Callable[[], Result], is_transient: Callable[[Exception], bool], what: str, settings: FetchSettings
) -> Result:
    """`attempt()`, again after an error that `is_transient` says may pass; `what` names it in the log."""
    for wait in waits(settings.retry):
        try:
            return attempt()
        except Exception as error:
            if not is_transient(error):
                raise
            settings.log("warning", f"{what}: {error}; trying again in {wait:.1f} s")
            time.sleep(wait)
    return attempt()
