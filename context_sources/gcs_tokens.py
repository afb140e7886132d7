"""Google's application default credentials: which one the environment has, and its tokens, by google-auth."""

from __future__ import annotations

import json
import logging
import re
import threading
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import google.auth  # with cryptography, for keys, 55 ms: imported only when there may be a credential
import urllib3
from google.auth import exceptions, transport

from builder.errors import ContextError
from context_sources.http_connections import connections_to
from context_sources.http_environment import UNTRUSTED
from context_sources.retry import Broken, Refused

SCOPE = "https://www.googleapis.com/auth/devstorage.read_only"
AWS = "urn:ietf:params:aws:token-type:aws4_request"
# An error code of OAuth 2.0 (RFC 6749, section 5.2) with its description, or what the library says of a foreign token;
# nothing else of an answer is repeated.
SAID = re.compile(
    r"\b(?:(?:invalid|unauthorized|unsupported)_[a-z_]+|access_denied)(?:: [^\r\n{}']{1,300})?"
    r"|\bFile '[^'\r\n]{1,300}' was not found|^Unable to retrieve Identity Pool subject token"
)
logging.getLogger("google").addHandler(logging.NullHandler())  # else its warnings go to standard error by themselves


@dataclass(slots=True)
class Tokens:
    """Access tokens by a credential of the library's, for any number of threads; `used` says what it is, in words."""

    used: str
    credentials: Any = field(repr=False)
    request: transport.Request = field(repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def headers(self) -> dict[str, str]:
        """What a request must have, from a token that is still good. Raises Broken or Refused."""
        headers: dict[str, str] = {}
        with self._lock:
            if not self.credentials.valid:
                self._refresh()
            self.credentials.apply(headers)
        return headers

    def renewed(self, refused: Mapping[str, str]) -> dict[str, str]:
        """What to send after the store has answered 401 to `refused`. Raises Broken or Refused."""
        headers: dict[str, str] = {}
        with self._lock:
            self.credentials.apply(headers)
            if headers == refused:  # else another thread has asked meanwhile
                self._refresh()
                self.credentials.apply(headers)
        return headers

    def _refresh(self) -> None:
        try:
            self.credentials.refresh(self.request)
        except exceptions.TransportError as error:
            cause = error.__cause__ or error
            if "CERTIFICATE_VERIFY_FAILED" in str(cause):
                raise Refused("the certificate of the token's server is not trusted", UNTRUSTED) from error
            raise Broken(f"the token's server did not answer ({type(cause).__name__})") from error
        except exceptions.GoogleAuthError as error:
            if error.retryable:
                raise Broken("the token's server gives no token now") from error
            said = SAID.search(str(error.args[0]) if error.args else "")
            raise Refused(
                f"Google gives no token{f': {said[0]}' if said else ''}",
                "the key may be revoked, the clock may be wrong, or the identity may be bound to no service account",
            ) from error
        except OSError as error:  # a file that the credential names
            raise Refused(f"{error.filename}: {error.strerror}", "mount the token that the credential names") from error
        except (KeyError, ValueError) as error:
            raise Refused("the token's server gives an answer that cannot be read", "check the credential") from error


class Requests(transport.Request):
    """What the library asks servers of tokens by: the environment's proxies and certificates, and no redirects."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._connections: dict[tuple[str, ...], urllib3.PoolManager] = {}

    def __call__(
        self,
        url: str,
        method: str = "GET",
        body: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        cert: tuple[str, str] | None = None,
        **unknown: object,
    ) -> urllib3.BaseHTTPResponse:
        """The answer, read; `cert` has the files of a client's certificate and key. Raises TransportError."""
        if unknown:
            raise exceptions.TransportError(f"no way to ask with {', '.join(unknown)}")  # type: ignore[no-untyped-call]
        try:
            parts = urlsplit(url)
            known = (parts.scheme, parts.netloc, *(cert or ()))
            if known not in self._connections:
                self._connections[known] = connections_to(url, self._environment)
                if cert:
                    self._connections[known].connection_pool_kw.update(cert_file=cert[0], key_file=cert[1])
            limit = {"timeout": timeout} if timeout else {}
            return self._connections[known].urlopen(
                method, url, body=body, headers=headers, retries=False, redirect=False, **limit
            )
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise exceptions.TransportError(type(error).__name__) from error  # type: ignore[no-untyped-call]


def of_file(path: str, environment: Mapping[str, str]) -> Tokens:
    """The credential that a file of any of Google's kinds has. Raises ContextError when it has none."""
    origin = " (GOOGLE_APPLICATION_CREDENTIALS)" if environment.get("GOOGLE_APPLICATION_CREDENTIALS") else ""
    request = Requests(environment)
    try:
        return Tokens(f"the credential was {path}{origin}", read_file(path, request), request)
    except (exceptions.GoogleAuthError, OSError, ValueError) as error:
        raise ContextError(
            f"Google credentials {path}: {error}", "mount the service account's key file there"
        ) from error


def read_file(path: str, request: Requests) -> Any:
    """Any kind of credential that is a JSON file.

    For an external account the library would at once exchange a token to ask for a project that nobody needs.
    """
    try:
        info = json.loads(Path(path).read_bytes())
    except ValueError as error:
        raise ValueError("not JSON") from error
    if not isinstance(info, dict):
        raise ValueError("not a JSON object")
    if info.get("type") != "external_account":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of files from strangers: this one is the user's own
            found, _ = google.auth.load_credentials_from_file(  # type: ignore[no-untyped-call]
                path, scopes=[SCOPE], request=request
            )
        return found
    if info.get("subject_token_type") == AWS:
        from google.auth import aws

        return aws.Credentials.from_info(info, scopes=[SCOPE])  # type: ignore[no-untyped-call]
    if (info.get("credential_source") or {}).get("executable") is not None:
        from google.auth import pluggable

        return pluggable.Credentials.from_info(info, scopes=[SCOPE])  # type: ignore[no-untyped-call]
    from google.auth import identity_pool

    return identity_pool.Credentials.from_info(info, scopes=[SCOPE])  # type: ignore[no-untyped-call]


def of_pod() -> Tokens | None:
    """The service account of the metadata server, which is on the machine itself: no proxy leads there."""
    import requests
    from google.auth.transport.requests import Request  # the library reaches this server in no other way

    session = requests.Session()
    session.trust_env = False
    request = Request(session)
    try:
        found, _ = google.auth.default(scopes=[SCOPE], request=request)
    except exceptions.DefaultCredentialsError:
        return None
    return Tokens("the credential was the pod's service account (metadata server)", found, request)
