"""HTTP with proxies and certificates from the given environment, and from nowhere else."""

from __future__ import annotations

import ipaddress
import os
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

import certifi
import requests
import urllib3
from requests.adapters import HTTPAdapter

from builder.errors import UsageError
from context_sources.http_body import TIMEOUT

# For one host: more than requests that go out at once.
KEPT_CONNECTIONS = 32
BUNDLE_NAMES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


def ca_bundle(environment: Mapping[str, str]) -> str:
    """The file of certificates that the environment states, or ""."""
    for name in BUNDLE_NAMES:
        if value := environment.get(name, ""):
            if not os.path.isfile(value):
                raise UsageError(f"{name}={value}: no such file", "mount the bundle of CA certificates there")
            return value
    return ""


def trust(environment: Mapping[str, str]) -> ssl.SSLContext:
    """Whom to trust: what the environment states, else the system's certificates and those shipped with requests.

    SSL_CERT_DIR is a list of directories whose files are all read, whatever they are called.
    """
    bundle = ca_bundle(environment)
    directories = [path for path in environment.get("SSL_CERT_DIR", "").split(":") if path]
    if not bundle and not directories:
        context = ssl.create_default_context()
        context.load_verify_locations(certifi.where())
        return context
    context = ssl.create_default_context(cafile=bundle or certifi.where())
    for directory in directories:
        for name in sorted(os.listdir(directory)) if os.path.isdir(directory) else ():
            path = os.path.join(directory, name)
            try:
                if os.path.isfile(path):
                    context.load_verify_locations(path)
            except ssl.SSLError:
                continue  # such directories also hold keys, revocation lists and notes
    return context


class TrustingAdapter(HTTPAdapter):
    """Verifies servers by one SSLContext and by nothing that requests would add."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        super().__init__(pool_maxsize=KEPT_CONNECTIONS)

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options, ssl_context=self._context)

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        return super().proxy_manager_for(proxy, **options, ssl_context=self._context)

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        conn.cert_reqs = "CERT_REQUIRED"


def configure(session: requests.Session, environment: Mapping[str, str]) -> None:
    """Bind a session to the environment's certificates, and to no other source of settings."""
    session.trust_env = False
    session.mount("https://", TrustingAdapter(trust(environment)))
    session.mount("http://", HTTPAdapter(pool_maxsize=KEPT_CONNECTIONS))


def connections_to(url: str, environment: Mapping[str, str]) -> urllib3.PoolManager:
    """Connections to the host of `url`, by the environment's certificates and proxy. Raises UsageError."""
    context = trust(environment)
    options: dict[str, Any] = {
        "ssl_context": context,
        "maxsize": KEPT_CONNECTIONS,
        "timeout": urllib3.Timeout(connect=TIMEOUT[0], read=TIMEOUT[1]),
    }
    proxy = next(iter(proxies_for(url, environment).values()), "")
    if not proxy:
        return urllib3.PoolManager(**options)
    parts = urlsplit(proxy)
    user = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
    headers = urllib3.make_headers(proxy_basic_auth=user) if user != ":" else None
    try:
        return urllib3.ProxyManager(proxy, proxy_headers=headers, proxy_ssl_context=context, **options)
    except urllib3.exceptions.HTTPError as error:
        raise UsageError(
            f"the proxy for {parts.hostname}: {error}", "use http://HOST:PORT or https://HOST:PORT"
        ) from error


def proxies_for(url: str, environment: Mapping[str, str]) -> dict[str, str]:
    """The proxy for `url`, in the form of requests: {scheme: proxy}, empty for none.

    Reads http_proxy (only in small letters, since CGI sets the other), https_proxy, all_proxy and no_proxy.
    """
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port
    names = [f"{parts.scheme}_proxy"] if parts.scheme == "http" else [f"{parts.scheme}_proxy", "HTTPS_PROXY"]
    proxy = next((environment[name] for name in (*names, "all_proxy", "ALL_PROXY") if environment.get(name)), "")
    exceptions = environment.get("no_proxy") or environment.get("NO_PROXY", "")
    if not proxy or any(is_exception(host, port, rule.strip()) for rule in exceptions.split(",")):
        return {}
    return {parts.scheme: proxy if "://" in proxy else f"http://{proxy}"}


def is_exception(host: str, port: int | None, rule: str) -> bool:
    """Whether one item of no_proxy covers `host`: *, a name[:PORT] and all below it, an address, a network."""
    if not rule:
        return False
    if rule == "*":
        return True
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(rule, strict=False)
    except ValueError:
        pass
    name, _, wanted_port = rule.partition(":")
    if wanted_port and wanted_port != str(port):
        return False
    name = name.removeprefix("*").lstrip(".").lower()
    return host.lower() == name or host.lower().endswith("." + name)
