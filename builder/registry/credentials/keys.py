"""The names under which credentials are stored, and which repositories they cover."""

from __future__ import annotations

from dataclasses import dataclass

from builder.oci.reference import DOCKER_HUB

HUB_KEY = "https://index.docker.io/v1/"
_HUB_HOSTS = ("docker.io", DOCKER_HUB, "registry-1.docker.io")


@dataclass(frozen=True, slots=True)
class Scope:
    """What a key of `auths` covers: a registry (canonical), or the part of it below `path`."""

    registry: str
    path: str = ""

    @classmethod
    def parse(cls, key: str) -> Scope:
        """From a key as docker, podman and people write it: `host`, `host/path`, `https://host/v1/`."""
        rest = key.strip().partition("://")[2] or key.strip()
        host, _, path = rest.partition("/")
        path = path.strip("/")
        return cls(_registry(host), "" if path in ("v1", "v2") else path)

    def covers(self, registry: str, repository: str) -> bool:
        """Whether the credential may be sent for `registry/repository`; whole path components count."""
        if self.registry != _registry(registry):
            return False
        return not self.path or repository == self.path or repository.startswith(self.path + "/")


def helper_key(registry: str) -> str:
    """What a credential helper is asked for: its host, or Docker Hub's historic URL."""
    return HUB_KEY if registry in _HUB_HOSTS else registry


def _registry(host: str) -> str:
    host = host.lower().removesuffix(":443")
    return DOCKER_HUB if host in _HUB_HOSTS else host
