"""Trying again: with waits that grow, and for streams from where they broke off."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import TypeVar

from builder.errors import ContextError
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


class Broken(Exception):
    """A request or a body broke off in a way that another attempt may repair. `wait` is what the server asks for."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


class Refused(Exception):
    """A request that cannot be authorized, now or later: why, as far as it is known, and in `hint` what to do."""

    def __init__(self, reason: str, hint: str) -> None:
        super().__init__(reason)
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Body:
    """Bytes of an object, from `offset` on, as a server sends them.

    `total` is the whole object's size, 0 if the server does not say; `version` is something that changes when the
    object does, "" if there is nothing of the kind. `chunks` raises Broken; `close` ends the transfer.
    """

    chunks: Iterator[bytes]
    offset: int
    total: int
    version: str
    close: Callable[[], None]


# From which offset; raises Broken, or ContextError for what another attempt does not change.
Open = Callable[[int], Body]


def resumed(
    first: Body, open_at: Open, what: str, settings: FetchSettings, digest: hashlib._Hash | None = None
) -> Generator[bytes, None, None]:
    """The bytes of `first`, and after it breaks off those that follow, from a new request.

    Attempts are counted anew whenever some bytes came. A server that starts from the beginning is read past what was
    there already; where neither a version nor `digest`, a SHA-256 that sees every byte, tells whether these bytes are
    the same, one of its own does. Raises ContextError when the object has changed in between, or when the attempts
    are used up.
    """
    body, position = first, 0
    if digest is None and not first.version:
        digest = hashlib.sha256()
    pauses = waits(settings.retry)
    while True:
        try:
            for chunk in _following(body, position, digest, what):
                position += len(chunk)
                if digest is not None:
                    digest.update(chunk)
                yield chunk
                pauses = waits(settings.retry)
            if first.total and position < first.total:
                raise Broken(f"{position} of {first.total} bytes came")
            return
        except Broken as error:
            reason: Exception = error
        finally:
            body.close()
        body = _reopened(open_at, position, pauses, reason, what, settings)
        if (body.version, body.total) != (first.version, first.total):
            body.close()
            raise ContextError(f"{what} changed while it was fetched", "start the build again", transient=True)


def _reopened(
    open_at: Open, position: int, pauses: Iterator[float], reason: Exception, what: str, settings: FetchSettings
) -> Body:
    for wait in pauses:
        wait = max(wait, getattr(reason, "wait", 0.0))
        settings.log("warning", f"{what}: {reason}; going on from byte {position} in {wait:.1f} s")
        time.sleep(wait)
        try:
            return open_at(position)
        except Broken as error:
            reason = error
    raise ContextError(f"{what}: {reason}, {settings.retry.attempts} times", transient=True) from reason


def _following(body: Body, position: int, digest: hashlib._Hash | None, what: str) -> Iterator[bytes]:
    """The chunks of `body` from `position` on; what comes before must have `digest`, if there is one."""
    if body.offset == position:
        yield from body.chunks
        return
    skipped, left = hashlib.sha256(), position
    for chunk in body.chunks:
        if left:
            skipped.update(chunk[:left])
            chunk, left = chunk[left:], max(left - len(chunk), 0)
            if not left and digest is not None and skipped.digest() != digest.digest():
                raise ContextError(f"{what} changed while it was fetched", "start the build again", transient=True)
        if chunk:
            yield chunk


def answered(call: Callable[[], Result], what: str, settings: FetchSettings) -> Result:
    """`call()`, again as long as it raises Broken and attempts are left; then ContextError."""
    pauses = waits(settings.retry)
    while True:
        try:
            return call()
        except Broken as error:
            wait = next(pauses, None)
            if wait is None:
                raise ContextError(f"{what}: {error}, {settings.retry.attempts} times", transient=True) from error
            wait = max(wait, error.wait)
            settings.log("warning", f"{what}: {error}; trying again in {wait:.1f} s")
            time.sleep(wait)


def opened(open_at: Open, what: str, settings: FetchSettings) -> Body:
    """The object from its beginning, tried several times."""
    return answered(lambda: open_at(0), what, settings)
