"""Credentials in environment variables: kaniko's KANIKO_<HOST>_USER, and GitLab's CI_REGISTRY."""

from __future__ import annotations

from collections.abc import Mapping

from builder.registry.credentials import program
from builder.registry.credentials.credential import Credential
from builder.registry.credentials.keys import Scope


def kaniko(registry: str, environ: Mapping[str, str]) -> Credential | None:
    """KANIKO_<HOST>_USER and KANIKO_<HOST>_PASSWORD: upper case, `.` and `-` as `_`.

    For a.b.example.com also B_EXAMPLE_COM, EXAMPLE_COM and COM, the longest first. The colon before a port stays,
    or is a `_` as well, since shells cannot set a variable with a colon.
    """
    host = registry.upper().replace("-", "_")
    labels = host.split(".")
    for start in range(len(labels)):
        suffix = "_".join(labels[start:])
        for name in dict.fromkeys((suffix, suffix.replace(":", "_"))):
            user, password = (environ.get(f"KANIKO_{name}_{part}", "") for part in ("USER", "PASSWORD"))
            found = program.credential(user, password, f"KANIKO_{name}_USER and KANIKO_{name}_PASSWORD")
            if found is not None:
                return found
    return None


def gitlab(registry: str, repository: str, environ: Mapping[str, str]) -> Credential | None:
    """CI_REGISTRY_USER and CI_REGISTRY_PASSWORD, for the registry that CI_REGISTRY names."""
    own = environ.get("CI_REGISTRY", "")
    if not own or not Scope.parse(own).covers(registry, repository):
        return None
    user, password = environ.get("CI_REGISTRY_USER", ""), environ.get("CI_REGISTRY_PASSWORD", "")
    return program.credential(user, password, "CI_REGISTRY_USER and CI_REGISTRY_PASSWORD")
