"""Connections of urllib3 with proxies and certificates from the given environment, and from nowhere else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote, urlsplit

import urllib3

from builder.errors import ContextError, UsageError
from context_sources.http_body import TIMEOUT
from context_sources.http_environment import UNTRUSTED, proxies_for, trust
from context_sources.http_heads import POOLS
from context_sources.retry import Broken

# For one host: more than requests that go out at once.
KEPT_CONNECTIONS = 32


def connections_to(url: str, environment: Mapping[str, str]) -> urllib3.PoolManager:
    """Connections to the host of `url`, by the environment's certificates and proxy. Raises UsageError."""
    proxy = next(iter(proxies_for(url, environment).values()), "")
    # Reading the certificates takes 40 ms.
    context = trust(environment) if url.startswith("https:") or proxy.lower().startswith("https:") else None
    options: dict[str, Any] = {
        "ssl_context": context,
        "maxsize": KEPT_CONNECTIONS,
        "timeout": urllib3.Timeout(connect=TIMEOUT[0], read=TIMEOUT[1]),
    }
    connections = through(proxy, options) if proxy else urllib3.PoolManager(**options)
    connections.pool_classes_by_scheme = POOLS
    return connections


def through(proxy: str, options: Mapping[str, Any]) -> urllib3.ProxyManager:
    """Connections by way of a proxy. Raises UsageError."""
    parts = urlsplit(proxy)
    user = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
    headers = urllib3.make_headers(proxy_basic_auth=user) if user != ":" else None
    try:
        return urllib3.ProxyManager(proxy, proxy_headers=headers, proxy_ssl_context=options["ssl_context"], **options)
    except urllib3.exceptions.HTTPError as error:
        raise UsageError(
            f"the proxy for {parts.hostname}: {error}", "use http://HOST:PORT or https://HOST:PORT"
        ) from error


@contextmanager
def asking(name: str, used: str) -> Iterator[None]:
    """While inside, a request for the object `name` is made with the credential that `used` says in words.

    Raises Broken where the connection breaks, ContextError where no connection or request can be made.
    """
    try:
        yield
    except ValueError as error:  # a host or an account that is no name, a line break where none can be
        raise ContextError(f"{name}: no request can be made of address and credential; {used}", "check both") from error
    except (urllib3.exceptions.HTTPError, OSError) as error:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            raise ContextError(f"{name}: the server's certificate is not trusted", UNTRUSTED) from error
        raise Broken(f"the connection broke ({type(error).__name__})") from error
