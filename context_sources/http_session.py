"""Sessions of requests that take certificates from the given environment, and look nowhere else."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any

import requests
from requests.adapters import HTTPAdapter

from context_sources.http_connections import KEPT_CONNECTIONS
from context_sources.http_environment import trust


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
