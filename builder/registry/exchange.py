"""Requests that are answered: repeated when that may help, redirects followed, secrets kept to their host."""

from __future__ import annotations

import email.utils
import random
import threading
import time
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urljoin, urlsplit, urlunsplit

import urllib3

from builder.errors import RegistryError
from builder.registry import failures
from builder.registry.connections import NO_ANSWER, Connections, Response, finish
from builder.registry.settings import Direction, RegistrySettings

_REDIRECTS = (301, 302, 303, 307, 308)
_MAX_REDIRECTS = 8
_PORTS = {"http": 80, "https": 443}


class Exchange:
    """Sends requests in one direction. Thread-safe."""

    def __init__(self, connections: Connections, settings: RegistrySettings, direction: Direction) -> None:
        self._connections = connections
        self._settings = settings
        self._direction: Direction = direction
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        """End every pause and every upload: what waits or sends fails now."""
        self._cancelled.set()

    def check(self) -> None:
        """Raise RegistryError when cancelled."""
        if self._cancelled.is_set():
            raise RegistryError("cancelled")

    def send(
        self,
        method: str,
        url: str,
        *,
        where: str,
        what: str,
        headers: Mapping[str, str],
        body: bytes | Iterable[bytes] | None = None,
        retries: int | None = None,
        read_timeout: float | None = None,
    ) -> Response:
        """The first answer that is neither transient nor a redirect; its body unread.

        A body that is no bytes can be sent once only and is never repeated. Authorization goes to `url`'s origin
        only. After the last repetition a transient answer is returned as it is, a broken connection raises
        RegistryError.
        """
        if retries is None:
            retries = self._settings.retries if body is None or isinstance(body, bytes) else 0
        for attempt in range(retries + 1):
            last = attempt == retries
            try:
                response = self._follow(method, url, headers, body, read_timeout)
            except NO_ANSWER as error:
                failure = failures.unreachable(error, urlsplit(url).netloc, where, what)
                if not self._settings.patient and failures.is_silence(error):
                    failure.transient = False
                if last or not failure.transient:
                    raise failure from error
                self.pause(attempt)
                continue
            if last or not failures.is_transient(response.status_code):
                return response
            wait = retry_after(response.headers.get("Retry-After", ""))
            if wait is not None and wait > self._settings.longest_pause:
                return response
            finish(response)
            self.pause(attempt, wait)
        raise AssertionError("unreachable")

    def pause(self, attempt: int, wait: float | None = None) -> None:
        """Sleep `wait` seconds, or by exponential back-off after failure number `attempt` (0-based).

        Raises RegistryError when cancelled.
        """
        if wait is None:
            wait = self._settings.backoff * 2**attempt * random.uniform(0.7, 1.3)  # noqa: S311  # spreads load only
        if self._cancelled.wait(min(wait, self._settings.longest_pause)):
            raise RegistryError("cancelled while waiting to ask a registry again")

    def _follow(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: Any,
        read_timeout: float | None,
    ) -> Response:
        origin = origin_of(url)
        for _ in range(_MAX_REDIRECTS):
            response = self._connections.send(
                method, url, self._direction, headers=headers, body=body, read_timeout=read_timeout
            )
            location = response.headers.get("Location")
            if response.status_code not in _REDIRECTS or not location:
                return response
            if method not in ("GET", "HEAD") and (response.status_code < 307 or not isinstance(body, bytes | None)):
                return response
            finish(response)
            url = urljoin(url, location)
            if origin_of(url) != origin:
                headers = {name: value for name, value in headers.items() if name.lower() != "authorization"}
        raise urllib3.exceptions.HTTPError(f"more than {_MAX_REDIRECTS} redirects")


def origin_of(url: str) -> tuple[str, str, int | None]:
    """Scheme, host and port: what a credential belongs to."""
    parts = urlsplit(url)
    return parts.scheme, (parts.hostname or "").lower(), parts.port or _PORTS.get(parts.scheme)


def never_downgraded(url: str, base: str) -> str:
    """`url` with https where it differs from `base` only by plain http.

    Registries behind a proxy that ends TLS often think that they are reached by http.
    """
    target, origin = urlsplit(url), urlsplit(base)
    if (target.scheme, origin.scheme) == ("http", "https") and target.hostname == origin.hostname:
        return urlunsplit(target._replace(scheme="https", netloc=origin.netloc))
    return url


def retry_after(value: str) -> float | None:
    """Seconds of a Retry-After header: a number or an HTTP date; None when it is neither."""
    value = value.strip()
    if value.isdigit():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError):
        return None
