"""Connections to hosts: TLS as each host needs it, proxies, time limits."""

from __future__ import annotations

import contextlib
import copy
import functools
import ipaddress
import os
import ssl
import threading
from collections.abc import Mapping, Sized
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import urllib3

from builder import __version__
from builder.errors import UsageError
from builder.once import Once
from builder.registry import failures
from builder.registry.settings import ClientCertificate, Direction, RegistrySettings

_POOL = 16
_PROBE_TIMEOUT = 10.0
_SHORT = 64 << 10  # bytes; reading the rest of an answer is cheaper than another connection
_ONCE = urllib3.Retry(0, read=False)  # it is builder.registry.exchange that repeats requests
NO_ANSWER = (urllib3.exceptions.HTTPError, OSError)  # what a request raises that gets none
_Trust = tuple[bool, Path | None, ClientCertificate | None]  # verifies, own authorities, client certificate


class Response:
    """The answer from `url`: `raw` reads its body as it comes."""

    def __init__(self, url: str, raw: urllib3.BaseHTTPResponse) -> None:
        self.url = url
        self.raw = raw
        self.status_code = raw.status
        self.headers = raw.headers

    def close(self) -> None:
        """Close the connection, unless the body was read to its end: then it serves the next request."""
        self.raw.close()
        self.raw.release_conn()


class Connections:
    """Connections by host; one object serves all registries of a build. Thread-safe.

    `environ` is read once, for proxies and certificate authorities (SSL_CERT_FILE, SSL_CERT_DIR as Go reads them).
    """

    def __init__(self, settings: RegistrySettings, environ: Mapping[str, str] | None = None) -> None:
        environ = os.environ if environ is None else environ
        self._settings = settings
        self._proxies = Proxies.of(environ)
        self._authorities = functools.partial(_authorities, environ.get("SSL_CERT_FILE"), environ.get("SSL_CERT_DIR"))
        self._managers: dict[tuple[str, str, Direction], urllib3.PoolManager] = {}
        self._contexts: dict[_Trust, ssl.SSLContext] = {}
        self._speak_tls = Once[str, bool]()
        self._lock = threading.Lock()
        suffix = f",{settings.client_type}" if settings.client_type else ""
        self.user_agent = f"limpet/{__version__}{suffix}"

    def with_settings(self, settings: RegistrySettings) -> Connections:
        """Connections of their own by other settings. What takes long is shared: who is trusted, who speaks TLS."""
        other = copy.copy(self)
        other._settings, other._managers = settings, {}
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
    ) -> Response:
        """One request, no redirect followed, no retry, the body unread. Raises NO_ANSWER.

        The connection of an answer without a body serves the next request already.
        """
        parts = urlsplit(url)
        manager = self._manager(parts.scheme, parts.netloc.rpartition("@")[2], direction)
        sent = {"User-Agent": self.user_agent, **headers}
        if isinstance(body, Sized):
            sent["Content-Length"] = str(len(body))
        timeout = urllib3.Timeout(self._settings.connect_timeout, read_timeout or self._settings.read_timeout)
        response = Response(url, _request(manager, method, url, timeout, sent, body))
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
        manager = self._new_manager(url, context)
        try:
            _request(manager, "GET", url, urllib3.Timeout(self._settings.connect_timeout, timeout)).close()
        except NO_ANSWER as error:
            return failures.speaks_tls(error)
        finally:
            manager.clear()
        return True

    def close(self) -> None:
        """Close what is open and not in use."""
        with self._lock:
            for manager in self._managers.values():
                manager.clear()

    def _manager(self, scheme: str, host: str, direction: Direction) -> urllib3.PoolManager:
        with self._lock:
            manager = self._managers.get((scheme, host, direction))
            if manager is None:
                context = None if scheme == "http" else self._tls(host, direction)
                manager = self._managers[scheme, host, direction] = self._new_manager(f"{scheme}://{host}", context)
            return manager

    def _new_manager(self, url: str, context: ssl.SSLContext | None) -> urllib3.PoolManager:
        """Connections to the host of `url`, directly or by its proxy; `context` alone decides who is trusted."""
        proxy = self._proxies.for_url(url)
        if proxy is None:
            return urllib3.PoolManager(maxsize=_POOL, ssl_context=context)
        return urllib3.ProxyManager(proxy, maxsize=_POOL, ssl_context=context, proxy_headers=_proxy_headers(proxy))

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


def _request(
    manager: urllib3.PoolManager,
    method: str,
    url: str,
    timeout: urllib3.Timeout,
    headers: Mapping[str, str] | None = None,
    body: Any = None,
) -> urllib3.BaseHTTPResponse:
    parts = urlsplit(url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if manager.proxy is not None and parts.scheme == "http":
        target = f"http://{parts.netloc.rpartition('@')[2]}{target}"  # a proxy that is not asked for a tunnel
    # Not by the whole URL: urllib3 would look at each of its characters twice.
    return manager.connection_from_url(f"{parts.scheme}://{parts.netloc}").urlopen(
        method,
        target,
        body,
        headers or {},
        retries=_ONCE,
        redirect=False,
        assert_same_host=False,
        timeout=timeout,
        preload_content=False,
        decode_content=False,
    )


def _proxy_headers(proxy: str) -> dict[str, str]:
    """Basic authentication by the user and password of a proxy's URL."""
    parts = urlsplit(proxy)
    if not parts.username:
        return {}
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return urllib3.make_headers(proxy_basic_auth=pair)


def finish(response: Response) -> None:
    """Close an answer that nobody reads; its connection serves the next request if little is left to read."""
    left = response.raw.length_remaining
    if left is not None and left <= _SHORT:
        with contextlib.suppress(*NO_ANSWER):
            response.raw.read()
    response.close()


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

    def for_url(self, url: str) -> str | None:
        """The URL of the proxy for `url`. Loopback is never asked of a proxy."""
        parts = urlsplit(url)
        host = (parts.hostname or "").lower()
        proxy = self._by_scheme.get(parts.scheme)
        if proxy is None or self._is_exempt(host, parts.port):
            return None
        return proxy if "://" in proxy else f"http://{proxy}"

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
