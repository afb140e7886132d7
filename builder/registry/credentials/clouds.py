"""Registries of clouds: which host belongs to which, and the token that its SDK's own chain of credentials gives.

The SDK runs in a process of its own (cloud_helper.py), with the environment that was there at the start: the build
imports no SDK, and the environment can be dropped before the first RUN.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path

from builder.registry.credentials import program
from builder.registry.credentials.credential import Credential

_ORIGINS = {
    "google": "Google application default credentials",
    "ecr": "the AWS credential chain",
    "acr": "the Azure credential chain",
}
_HOSTS = {
    "google": re.compile(r"gcr\.io|.+\.gcr\.io|.+\.pkg\.dev|.+\.google\.com"),
    "ecr": re.compile(
        r"\d{12}\.dkr[.-]ecr(?:-fips)?\.[a-z0-9-]+\.(?:amazonaws\.com(?:\.cn)?|on\.aws|on\.amazonwebservices\.com\.cn)"
        r"|public\.ecr\.aws"
    ),
    "acr": re.compile(r"[a-z0-9-]+(?:\.[a-z0-9-]+)?\.azurecr\.(?:io|cn|de|us)"),
}

# Helpers that kaniko's image has, and that its users therefore name in config.json.
BY_HELPER = {"gcr": "google", "gcloud": "google", "ecr-login": "ecr", "acr-env": "acr"}


def serves(cloud: str, registry: str) -> bool:
    """Whether `registry` belongs to `cloud` (google, ecr or acr)."""
    return _HOSTS[cloud].fullmatch(registry.lower()) is not None


def find(cloud: str, registry: str, environ: Mapping[str, str]) -> Credential | None:
    """A credential from `cloud`'s SDK, None when its chain has none. Raises RegistryError when it fails."""
    helper = Path(__file__).with_name("cloud_helper.py")
    # -P: the helper's own directory must not come before the SDKs' modules.
    command = [sys.executable, "-P", str(helper), cloud]
    return program.get(command, registry, environ, _ORIGINS[cloud])
