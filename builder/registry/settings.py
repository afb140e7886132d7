"""How to reach registries: what the command line says of them."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from builder.oci.reference import canonical_registry
from builder.registry.mirrors import Mirrors

Direction = Literal["pull", "push"]


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """PEM files of a certificate and its key."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrySettings:
    """Hosts are `host[:port]` as written in references. Sizes are bytes, times are seconds.

    `certificates` and `client_certificates` belong to one registry each and are shown to no other.
    """

    insecure: bool = False  # plain HTTP may be used to push
    insecure_pull: bool = False  # plain HTTP may be used to pull
    insecure_registries: frozenset[str] = frozenset()  # both directions
    skip_tls_verify: bool = False  # when pushing
    skip_tls_verify_pull: bool = False
    skip_tls_verify_registries: frozenset[str] = frozenset()
    certificates: Mapping[str, Path] = field(default_factory=dict, hash=False)
    client_certificates: Mapping[str, ClientCertificate] = field(default_factory=dict, hash=False)
    mirrors: Mirrors = field(default_factory=Mirrors)
    client_type: str = ""  # UPSTREAM_CLIENT_TYPE: ends the user agent
    retries: int = 4  # of one request, after a failure that may pass
    backoff: float = 0.3  # the first pause; each next one is twice as long
    push_retries: int = 0  # --push-retry: of a whole push, on top
    download_retries: int = 0  # --image-download-retry: of a whole resolution, on top
    connect_timeout: float = 30
    read_timeout: float = 90
    patient: bool = True  # whether who said nothing in that time is asked again
    longest_pause: float = 300  # a registry that asks for more (Retry-After) is given up
    commit_timeout: float = 900  # registries on object storage copy a blob before they answer
    parallel: int = 4  # blobs moved at once for one repository
    chunk_size: int = 16 << 20  # of chunked uploads; each is held in memory
    monolithic_limit: int = 4 << 30  # larger blobs are uploaded in chunks at once

    def allows_http(self, host: str, direction: Direction) -> bool:
        """Whether plain HTTP may be spoken with `host` when it does not speak TLS."""
        everywhere = self.insecure if direction == "push" else self.insecure_pull
        return everywhere or _names(self.insecure_registries, host) or is_loopback(host)

    def verifies_tls(self, host: str, direction: Direction) -> bool:
        """Whether `host` must show a certificate that is trusted."""
        nowhere = self.skip_tls_verify if direction == "push" else self.skip_tls_verify_pull
        return not nowhere and not _names(self.skip_tls_verify_registries, host)

    def certificate(self, host: str) -> Path | None:
        """PEM file of authorities that are trusted for `host`, besides the system's."""
        return next((path for name, path in self.certificates.items() if _names((name,), host)), None)

    def client_certificate(self, host: str) -> ClientCertificate | None:
        """What to show `host` when it asks who is there."""
        return next((pair for name, pair in self.client_certificates.items() if _names((name,), host)), None)


def _names(registries: Iterable[str], host: str) -> bool:
    return canonical_registry(host) in map(canonical_registry, registries)


def is_loopback(host: str) -> bool:
    """Whether `host[:port]` can only be this machine."""
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() and not host.endswith("]") else host
    name = name.strip("[]").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
