"""Telling a registry who asks: Basic, and Bearer tokens of a token server (distribution's token specification)."""

from __future__ import annotations

import base64
import json
import threading
import time
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlencode, urlsplit

import urllib3

from builder.errors import RegistryError
from builder.registry import challenge, failures
from builder.registry.challenge import Challenge
from builder.registry.connections import Response
from builder.registry.credentials.credential import Credential, Lookup
from builder.registry.exchange import Exchange

_DEFAULT_LIFE = 60.0  # seconds; the specification's value when the server gives none
_CLIENT = "limpet"
_BODY_LIMIT = 1 << 20


class Keychain(Protocol):
    """Where credentials come from."""

    def find(self, registry: str, repository: str, *, fresh: bool = False) -> Lookup:
        """The credential for a repository; `fresh` asks again a source that may have changed its answer."""
        ...


@dataclass(frozen=True, slots=True)
class _Token:
    header: str
    expires: float  # time.monotonic()


Scopes = tuple[str, ...]


class Authenticator:
    """Authorization headers for one registry; tokens are kept by scope until shortly before they expire.

    Thread-safe.
    """

    def __init__(self, registry: str, base: str, keychain: Keychain, exchange: Exchange) -> None:
        self._registry = registry
        self._base = base
        self._keychain = keychain
        self._exchange = exchange
        self._challenge: Challenge | None = None
        self._tokens: dict[tuple[str, Scopes], _Token] = {}
        self._lock = threading.Lock()

    def lookup(self, repository: str) -> Lookup:
        """Which credential is used for `repository`."""
        return self._keychain.find(self._registry, repository)

    def header(self, repository: str, scopes: Scopes) -> str | None:
        """What to send with the next request; None before the registry has asked for anything."""
        with self._lock:
            if self._challenge is None:
                return None
            token = self._tokens.get((repository, scopes))
            if token is not None and token.expires > time.monotonic():
                return token.header
            return self._obtain(repository, scopes, self._challenge, fresh=False)

    def answer(self, response: Response, repository: str, scopes: Scopes, sent: str | None) -> str | None:
        """What to send after a 401 to a request that carried `sent`; None when there is nothing else to try.

        Raises RegistryError when the token server refuses.
        """
        challenges = challenge.parse(response.headers.get("WWW-Authenticate", ""))
        chosen = next((item for wanted in ("bearer", "basic") for item in challenges if item.scheme == wanted), None)
        if chosen is None:
            return None
        with self._lock:
            known = self._tokens.get((repository, scopes))
            if known is not None and known.header != sent and known.expires > time.monotonic():
                return known.header  # another thread was faster
            self._challenge = chosen
            header = self._obtain(repository, scopes, chosen, fresh=sent is not None)
            return header if header != sent else None

    def _obtain(self, repository: str, scopes: Scopes, chosen: Challenge, *, fresh: bool) -> str | None:
        lookup = self._keychain.find(self._registry, repository, fresh=fresh)
        credential = lookup.credential
        if credential is not None and credential.kind == "registry token":
            token = _Token(f"Bearer {credential.secret}", _expiry(credential))
        elif chosen.scheme == "basic":
            if credential is None or credential.kind != "password":
                return None
            token = _Token(_basic(credential), _expiry(credential))
        else:
            token = self._fetch(lookup, scopes, chosen)
        self._tokens[repository, scopes] = token
        return token.header

    def _fetch(self, lookup: Lookup, scopes: Scopes, chosen: Challenge) -> _Token:
        realm = chosen.parameters.get("realm", "")
        where = f"{self._registry}/{lookup.repository.partition('/')[2]}".rstrip("/")
        parts = urlsplit(realm)
        if parts.scheme not in ("http", "https") or not parts.netloc or parts.username is not None:
            raise RegistryError(f"{where}: the registry names {realm!r} as its token server, which is no URL")
        if parts.scheme == "http" and self._base.startswith("https:"):
            raise RegistryError(
                f"{where}: the registry's token server {realm} is plain HTTP, where a credential would be readable",
                "set the registry's auth.token.realm to an https URL",
            )
        wanted = scopes or tuple(chosen.parameters.get("scope", "").split())
        response = self._ask(realm, chosen.parameters.get("service", ""), wanted, lookup.credential, where)
        if response.status_code != 200:
            raise failures.refused(response, where, f"asking {parts.netloc} for a token", lookup)
        return _token(response, where, parts.netloc)

    def _ask(self, realm: str, service: str, scopes: Scopes, credential: Credential | None, where: str) -> Response:
        what = f"asking {urlsplit(realm).netloc} for a token"
        if credential is not None and credential.kind == "identity token":
            form = {
                "grant_type": "refresh_token",
                "service": service,
                "client_id": _CLIENT,
                "scope": " ".join(scopes),
                "refresh_token": credential.secret,
            }
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            body = urlencode(form).encode()
            return self._exchange.send("POST", realm, where=where, what=what, headers=headers, body=body)
        query = [("service", service)] if service else []
        query += [("scope", scope) for scope in scopes]
        headers = {}
        if credential is not None:
            query += [("account", credential.username), ("client_id", _CLIENT)]
            headers["Authorization"] = _basic(credential)
        url = realm + ("&" if urlsplit(realm).query else "?") + urlencode(query)
        return self._exchange.send("GET", url, where=where, what=what, headers=headers)


def _token(response: Response, where: str, server: str) -> _Token:
    try:
        value = json.loads(response.raw.read(_BODY_LIMIT, decode_content=True))
        token = value.get("token") or value["access_token"]
        life = float(value.get("expires_in") or _DEFAULT_LIFE)
        if not isinstance(token, str):
            raise TypeError
    except (ValueError, LookupError, TypeError, AttributeError, OSError, urllib3.exceptions.HTTPError) as error:
        raise RegistryError(f"{where}: {server} answers with something that is no token", transient=True) from error
    finally:
        response.close()
    return _Token(f"Bearer {token}", time.monotonic() + life - min(30.0, life * 0.2))


def _basic(credential: Credential) -> str:
    pair = f"{credential.username}:{credential.secret}".encode()
    return "Basic " + base64.b64encode(pair).decode()


def _expiry(credential: Credential) -> float:
    """When to look the credential up again, as time.monotonic()."""
    if credential.expires is None:
        return float("inf")
    return time.monotonic() + credential.expires - time.time() - 60
