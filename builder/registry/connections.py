"""Connections to hosts: TLS as each host needs it, proxies, time limits."""

from __future__ import annotations

import contextlib
import copy
import functools
import ipaddress
import os
import ssl
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter

from builder import __version__
from builder.errors import UsageError
from builder.once import Once
from builder.registry import failures
from builder.registry.settings import ClientCertificate, Direction, RegistrySettings

_POOL = 16
_PROBE_TIMEOUT = 10.0
_SHORT = 64 << 10  # bytes; reading the rest of an answer is cheaper than another connection
_Trust = tuple[bool, Path | None, ClientCertificate | None]  # verifies, own authorities, client certificate


class Connections:
    """Sessions by host; one object serves all registries of a build. Thread-safe.

    `environ` is read once, for proxies and certificate authorities (SSL_CERT_FILE, SSL_CERT_DIR as Go reads them).
    """

    def __init__(self, settings: RegistrySettings, environ: Mapping[str, str] | None = None) -> None:
        environ = os.environ if environ is None else environ
        self._settings = settings
        self._proxies = Proxies.of(environ)
        self._authorities = functools.partial(_authorities, environ.get("SSL_CERT_FILE"), environ.get("SSL_CERT_DIR"))
        self._sessions: dict[tuple[str, str, Direction], requests.Session] = {}
        self._contexts: dict[_Trust, ssl.SSLContext] = {}
        self._speak_tls = Once[str, bool]()
        self._lock = threading.Lock()
        suffix = f",{settings.client_type}" if settings.client_type else ""
        self.user_agent = f"limpet/{__version__}{suffix}"

    def with_settings(self, settings: RegistrySettings) -> Connections:
        """Connections of their own by other settings. What takes long is shared: who is trusted, who speaks TLS."""
        other = copy.copy(self)
        other._settings, other._sessions = settings, {}
        return other

    def send(
        self,
        method: str,
        url: str,
        direction: Direction,
        *,
        headers: Mapping[str, str],
        body: Any = None,
        read_timeout: float | None = None,
    ) -> requests.Response:
        """One request, no redirect followed, no retry, the body unread. Raises requests.RequestException.

        The connection of an answer without a body serves the next request already.
        """
        parts = urlsplit(url)
        session = self._session(parts.scheme, parts.netloc.rpartition("@")[2], direction)
        request = requests.Request(method, url, headers={"User-Agent": self.user_agent, **headers}, data=body)
        response = session.send(
            session.prepare_request(request),
            stream=True,
            allow_redirects=False,
            timeout=(self._settings.connect_timeout, read_timeout or self._settings.read_timeout),
            proxies=self._proxies.for_url(url),
        )
        if response.raw.length_remaining == 0:
            response.raw.read()  # closing an answer that was not read to its end closes the connection
        return response

    def speaks_tls(self, host: str) -> bool:
        """Whether TLS is spoken at `host`, a name with an optional port; asked once. Says nothing of who that is."""
        return self._speak_tls.get(host, lambda: self._answers_tls(host))

    def _answers_tls(self, host: str) -> bool:
        # Nobody is trusted, so no certificate passes and nothing is sent: which error comes is what tells.
        url, context = f"https://{host}/v2/", ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        timeout = min(_PROBE_TIMEOUT, self._settings.read_timeout)
        with requests.Session() as session:
            session.trust_env = False
            session.mount("https://", _Adapter(context))
            try:
                session.get(
                    url,
                    allow_redirects=False,
                    timeout=(self._settings.connect_timeout, timeout),
                    proxies=self._proxies.for_url(url),
                )
            except requests.RequestException as error:
                return failures.speaks_tls(error)
        return True

    def close(self) -> None:
        """Close what is open and not in use."""
        with self._lock:
            for session in self._sessions.values():
                session.close()

    def _session(self, scheme: str, host: str, direction: Direction) -> requests.Session:
        with self._lock:
            session = self._sessions.get((scheme, host, direction))
            if session is None:
                session = self._sessions[scheme, host, direction] = self._open(scheme, host, direction)
            return session

    def _open(self, scheme: str, host: str, direction: Direction) -> requests.Session:
        session = requests.Session()
        session.trust_env = False  # no .netrc: only Credentials knows what goes where
        session.headers.clear()
        adapter = HTTPAdapter(pool_maxsize=_POOL) if scheme == "http" else _Adapter(self._tls(host, direction))
        session.mount(f"{scheme}://", adapter)
        return session

    def _tls(self, host: str, direction: Direction) -> ssl.SSLContext:
        """One context for all hosts that are trusted alike: to read the authorities takes long."""
        verifies = self._settings.verifies_tls(host, direction)
        own, client = self._settings.certificate(host), self._settings.client_certificate(host)
        key = (verifies, own, client)
        if key not in self._contexts:
            self._contexts[key] = self._new_context(host, verifies, own, client)
        return self._contexts[key]

    def _new_context(
        self, host: str, verifies: bool, own: Path | None, client: ClientCertificate | None
    ) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        if verifies:
            self._authorities(context)
            if own is not None:
                _load(context, own, f"--registry-certificate for {host}")
        else:
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)  # the user asked for it
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if client is not None:
            try:
                context.load_cert_chain(client.certificate, client.key)
            except OSError as error:  # ssl.SSLError is one
                raise UsageError(
                    f"--registry-client-cert for {host}: {client.certificate}, {client.key}: {_reason(error)}",
                    "give the paths of a PEM certificate and of its key without a passphrase",
                ) from error
        return context


def finish(response: requests.Response) -> None:
    """Close an answer that nobody reads; its connection serves the next request if little is left to read."""
    left = response.raw.length_remaining
    if left is not None and left <= _SHORT:
        with contextlib.suppress(urllib3.exceptions.HTTPError, OSError):
            response.raw.read()
    response.close()


class _Adapter(HTTPAdapter):
    """HTTPS by one SSL context, which alone decides who is trusted."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        super().__init__(pool_maxsize=_POOL)

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, ssl_context=self._context, **options)

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        return super().proxy_manager_for(proxy, ssl_context=self._context, **options)

    def build_connection_pool_key_attributes(
        self, request: requests.PreparedRequest, verify: Any, cert: Any = None
    ) -> tuple[Any, Any]:
        host, _ = super().build_connection_pool_key_attributes(request, verify, cert)
        return host, {}

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        """Nothing: requests would add certifi's authorities to the context."""


class Proxies:
    """HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY of an environment, lower case first."""

    def __init__(self, by_scheme: Mapping[str, str], exempt: tuple[str, ...]) -> None:
        self._by_scheme = by_scheme
        self._exempt = exempt

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Proxies:
        def variable(name: str) -> str:
            return environ.get(name.lower()) or environ.get(name) or ""

        every = variable("ALL_PROXY")
        table = {"http": variable("HTTP_PROXY") or every, "https": variable("HTTPS_PROXY") or every}
        exempt = tuple(filter(None, (part.strip().lower() for part in variable("NO_PROXY").split(","))))
        return cls({scheme: proxy for scheme, proxy in table.items() if proxy}, exempt)

    def for_url(self, url: str) -> dict[str, str]:
        """The `proxies` argument of requests for `url`. Loopback is never asked of a proxy."""
        parts = urlsplit(url)
        host = (parts.hostname or "").lower()
        proxy = self._by_scheme.get(parts.scheme)
        if proxy is None or self._is_exempt(host, parts.port):
            return {}
        return {parts.scheme: proxy}

    def _is_exempt(self, host: str, port: int | None) -> bool:
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            address = None
        if host == "localhost" or (address is not None and address.is_loopback):
            return True
        return any(_exempts(entry, host, port, address) for entry in self._exempt)


def _exempts(entry: str, host: str, port: int | None, address: Any) -> bool:
    """Whether an entry of NO_PROXY (`*`, a domain with or without dot, an address, a network, `:port`) has `host`."""
    if entry == "*":
        return True
    if address is not None and "/" in entry:
        try:
            return address in ipaddress.ip_network(entry, strict=False)
        except ValueError:
            return False
    name, colon, digits = entry.rpartition(":")
    if colon and digits.isdigit() and "]" not in digits and (name.count(":") == 0 or name.startswith("[")):
        if port is not None and int(digits) != port:
            return False
        entry = name
    entry = entry.strip("[]").removeprefix("*")
    return host == entry.removeprefix(".") or host.endswith("." + entry.removeprefix("."))


def _authorities(file: str | None, directories: str | None, context: ssl.SSLContext) -> None:
    """Trust what Go trusts: SSL_CERT_FILE instead of the system's bundle, every file in SSL_CERT_DIR as well."""
    if file:
        _load(context, Path(file), "SSL_CERT_FILE")
    else:
        context.load_default_certs()
        if not context.cert_store_stats()["x509_ca"]:
            import certifi  # a system with authorities of its own needs no others

            context.load_verify_locations(certifi.where())
    for directory in filter(None, (directories or "").split(":")):
        if not os.path.isdir(directory):
            continue
        for path in sorted(Path(directory).iterdir()):
            try:
                context.load_verify_locations(path)
            except OSError:
                continue  # directories of certificates also hold keys, hashes and READMEs


def _load(context: ssl.SSLContext, path: Path, origin: str) -> None:
    try:
        context.load_verify_locations(path)
    except OSError as error:
        raise UsageError(
            f"{origin}: {path}: {_reason(error)}", "give the path of a PEM file of certificates"
        ) from error


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return "not a PEM file that OpenSSL accepts"
    return error.strerror or str(error)
