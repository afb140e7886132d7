"""One registry, reached in one direction: scheme, authentication and errors of every request."""

from __future__ import annotations

import json
import threading
from collections.abc import Collection, Iterable, Mapping
from urllib.parse import urljoin, urlsplit

import urllib3

from builder.errors import RegistryError
from builder.oci.reference import api_host
from builder.registry import failures
from builder.registry.authentication import Authenticator, Keychain
from builder.registry.connections import Connections, Response, finish
from builder.registry.exchange import Exchange, never_downgraded, origin_of
from builder.registry.settings import Direction, RegistrySettings

_AUTH_ATTEMPTS = 2  # the first answer to a challenge, and one with what a credential source says now


class Transport:
    """HTTP with the registry called `registry` (as references name it). Thread-safe.

    `scheme` "http" or "https" fixes what the settings would decide.
    """

    def __init__(
        self,
        registry: str,
        direction: Direction,
        settings: RegistrySettings,
        connections: Connections,
        keychain: Keychain,
        scheme: str = "",
    ) -> None:
        self.registry = registry
        self.settings = settings
        self.exchange = Exchange(connections, settings, direction)
        self.direction: Direction = direction
        self._connections = connections
        self._keychain = keychain
        self._scheme = scheme
        self._authenticator: Authenticator | None = None
        self._lock = threading.Lock()

    @property
    def base(self) -> str:
        """`scheme://host[:port]` of the API. Raises RegistryError when the registry cannot be reached."""
        return f"{self._found_scheme()}://{api_host(self.registry)}"

    @property
    def authenticator(self) -> Authenticator:
        """Who speaks for us here."""
        base = self.base
        with self._lock:
            if self._authenticator is None:
                self._authenticator = Authenticator(self.registry, base, self._keychain, self.exchange)
            return self._authenticator

    def send(
        self,
        method: str,
        path: str,
        *,
        repository: str,
        scopes: Iterable[str],
        what: str,
        expected: Collection[int],
        headers: Mapping[str, str] | None = None,
        body: bytes | Iterable[bytes] | None = None,
        retries: int | None = None,
        read_timeout: float | None = None,
    ) -> Response:
        """The registry's answer with a status of `expected`, its body unread; the caller closes it.

        `path` is absolute or a URL that the registry gave; `what` continues "while ...". Raises RegistryError.
        A `body` that is no bytes is sent once: when it is met by a 401, the error says so by its status.
        """
        base = self.base
        url = never_downgraded(urljoin(base, path), base)
        where = f"{self.registry}/{repository}" if repository else self.registry
        wanted = tuple(scopes)
        own = origin_of(url) == origin_of(base)
        authorization = self.authenticator.header(repository, wanted) if own else None
        for attempt in range(_AUTH_ATTEMPTS + 1):
            sent = dict(headers or {})
            if authorization:
                sent["Authorization"] = authorization
            response = self.exchange.send(
                method,
                url,
                where=where,
                what=what,
                headers=sent,
                body=body,
                retries=retries,
                read_timeout=read_timeout,
            )
            if response.status_code in expected:
                return response
            repeatable = body is None or isinstance(body, bytes)
            if response.status_code != 401 or not own or not repeatable or attempt == _AUTH_ATTEMPTS:
                break
            authorization = self.authenticator.answer(response, repository, wanted, authorization)
            if authorization is None:
                break
            finish(response)
        lookup = self.authenticator.lookup(repository) if own else None
        raise failures.refused(response, where, what, lookup)

    def _found_scheme(self) -> str:
        with self._lock:
            if not self._scheme:
                self._scheme = self._probe()
            return self._scheme

    def _probe(self) -> str:
        """https, unless plain HTTP may be spoken and the registry does not answer TLS."""
        host = api_host(self.registry)
        if not self.settings.allows_http(self.registry, self.direction):
            return "https"
        return "https" if self._connections.speaks_tls(host) else "http"


def read_json(response: Response, limit: int, where: str) -> object:
    """The JSON body of an answer of at most `limit` bytes. Raises RegistryError."""
    data = read_body(response, limit, where)
    try:
        return json.loads(data)
    except ValueError as error:
        raise RegistryError(f"{where}: the registry's answer is not JSON") from error


def read_body(response: Response, limit: int, where: str) -> bytes:
    """The body of an answer. Raises RegistryError when it breaks off or is longer than `limit` bytes."""
    try:
        data: bytes = response.raw.read(limit + 1, decode_content=True)
        announced = response.headers.get("Content-Length", "")
        encoded = response.headers.get("Content-Encoding")
        if announced.isdigit() and not encoded and len(data) < min(int(announced), limit + 1):
            raise RegistryError(f"{where}: the registry's answer broke off", transient=True)
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise failures.unreachable(error, urlsplit(response.url).netloc, where, "reading the answer") from error
    finally:
        response.close()
    if len(data) > limit:
        raise RegistryError(f"{where}: the registry's answer is longer than {limit} bytes")
    return data
