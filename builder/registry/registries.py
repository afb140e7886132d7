"""The registries of one build: what is shared between all talks with them."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping

from builder.oci.reference import Reference
from builder.registry.authentication import Keychain
from builder.registry.connections import Connections
from builder.registry.repository import Repository
from builder.registry.settings import Direction, RegistrySettings
from builder.registry.transport import Transport


class Registries:
    """Hands out repositories. Thread-safe. One transport for each registry and direction, so tokens are shared."""

    def __init__(
        self, settings: RegistrySettings, keychain: Keychain, environ: Mapping[str, str] | None = None
    ) -> None:
        """`environ` is read at once, for proxies and certificate authorities."""
        self.settings = settings
        self.keychain = keychain
        self._environ = os.environ if environ is None else environ
        self._connections = Connections(settings, self._environ)
        self._transports: dict[tuple[str, Direction, str], Transport] = {}
        self._present: dict[tuple[str, str], list[str]] = {}
        self._busy: dict[tuple[str, str], threading.Lock] = {}
        self._lock = threading.Lock()

    def repository(self, reference: Reference, direction: Direction, scheme: str = "") -> Repository:
        """The repository of `reference`. `scheme` "http" or "https" overrides the settings."""
        return Repository(self._transport(reference.registry, direction, scheme), reference.repository)

    def with_settings(self, settings: RegistrySettings) -> Registries:
        """The same registries spoken to in another way; what is known of blobs is shared."""
        other = Registries(settings, self.keychain, self._environ)
        other._connections = self._connections.with_settings(settings)
        other._present, other._busy, other._lock = self._present, self._busy, self._lock
        return other

    def note_blob(self, repository: Repository, digest: str) -> None:
        """Remember that `repository` has a blob, so that others of its registry can mount it."""
        with self._lock:
            names = self._present.setdefault((repository.transport.registry, digest), [])
            if repository.name not in names:
                names.append(repository.name)

    def blob_sources(self, registry: str, digest: str) -> tuple[str, ...]:
        """Repositories of `registry` that are known to have a blob."""
        with self._lock:
            return tuple(self._present.get((registry, digest), ()))

    def blob_lock(self, registry: str, digest: str) -> threading.Lock:
        """Held while a blob is being sent to `registry`: whoever waits for it can mount afterwards."""
        with self._lock:
            return self._busy.setdefault((registry, digest), threading.Lock())

    def cancel(self) -> None:
        """Make every transfer that is under way fail soon."""
        with self._lock:
            transports = tuple(self._transports.values())
        for transport in transports:
            transport.exchange.cancel()

    def close(self) -> None:
        """Close idle connections."""
        self._connections.close()

    def _transport(self, registry: str, direction: Direction, scheme: str) -> Transport:
        with self._lock:
            key = (registry, direction, scheme)
            transport = self._transports.get(key)
            if transport is None:
                transport = Transport(registry, direction, self.settings, self._connections, self.keychain, scheme)
                self._transports[key] = transport
            return transport
