"""Flags -> how registries are spoken to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from builder.cli.arguments import Arguments
from builder.errors import UsageError
from builder.registry.mirrors import Mirrors
from builder.registry.settings import ClientCertificate, RegistrySettings


@dataclass(frozen=True, slots=True)
class RegistryAccess:
    """`helpers` are asked for credentials after the docker configuration; None for all that there are."""

    settings: RegistrySettings = field(default_factory=RegistrySettings)
    helpers: tuple[str, ...] | None = None


def registry_access(arguments: Arguments, env: Mapping[str, str]) -> RegistryAccess:
    """How registries are spoken to; flags that the command does not have keep their defaults."""
    values = arguments.values
    certificates = cast("dict[str, str]", values.get("registry-certificate", {}))
    client = cast("dict[str, str]", values.get("registry-client-cert", {}))
    settings = RegistrySettings(
        insecure=bool(values.get("insecure", False)),
        insecure_pull=bool(values.get("insecure-pull", False)),
        insecure_registries=frozenset(_listed(arguments, "insecure-registry")),
        skip_tls_verify=bool(values.get("skip-tls-verify", False)),
        skip_tls_verify_pull=bool(values.get("skip-tls-verify-pull", False)),
        skip_tls_verify_registries=frozenset(_listed(arguments, "skip-tls-verify-registry")),
        certificates={host: _readable(path, "--registry-certificate") for host, path in certificates.items()},
        client_certificates={host: _pair(host, value) for host, value in client.items()},
        mirrors=_mirrors(arguments),
        client_type=env.get("UPSTREAM_CLIENT_TYPE", ""),
        push_retries=_at_least_zero(arguments, "push-retry"),
        download_retries=_at_least_zero(arguments, "image-download-retry"),
    )
    return RegistryAccess(settings, _helpers(arguments))


def _mirrors(arguments: Arguments) -> Mirrors:
    """--registry-mirror behind --registry-map, under docker.io."""
    maps = cast("dict[str, tuple[str, ...]]", arguments.values.get("registry-map", {}))
    return Mirrors.parse(
        [f"{name}={mirror}" for name, mirrors in maps.items() for mirror in mirrors],
        _listed(arguments, "registry-mirror"),
        fallback=not arguments.values.get("skip-default-registry-fallback", False),
    )


def _helpers(arguments: Arguments) -> tuple[str, ...] | None:
    if "credential-helpers" not in arguments.given:
        return None
    return tuple(word for text in arguments.items("credential-helpers") for word in text.replace(",", " ").split())


def _listed(arguments: Arguments, name: str) -> tuple[str, ...]:
    return arguments.items(name) if name in arguments.values else ()


def _at_least_zero(arguments: Arguments, name: str) -> int:
    value = cast(int, arguments.values.get(name, 0))
    if value < 0:
        raise UsageError(f"--{name}: {value} is negative", "0 keeps to Limpet's own retries")
    return value


def _pair(host: str, text: str) -> ClientCertificate:
    parts = text.split(",")
    if len(parts) != 2:
        raise UsageError(
            f"--registry-client-cert: {host}: expected a certificate and a key", "write HOST=/cert.pem,/key.pem"
        )
    flag = "--registry-client-cert"
    return ClientCertificate(_readable(parts[0], flag), _readable(parts[1], flag))


def _readable(text: str, flag: str) -> Path:
    try:
        with open(text, "rb"):
            return Path(text)
    except OSError as error:
        raise UsageError(f"{flag}: {text}: {error.strerror}", "give the path of a PEM file") from None
