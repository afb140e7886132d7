"""Which values the log must never show: found in the environment, or by the search for a registry's credential."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping

from builder.cli.output.redaction import Redactor
from builder.registry.credentials import Credentials, Lookup

# GIT_TOKEN, GIT_PASSWORD, KANIKO_<HOST>_PASSWORD, CI_REGISTRY_PASSWORD, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN,
# AZURE_STORAGE_ACCESS_KEY, AZURE_CLIENT_SECRET, AZURE_STORAGE_CONNECTION_STRING and whatever is called like them.
_SECRET = re.compile(r"(TOKEN|PASSWORD|SECRET|SECRET_ACCESS_KEY|STORAGE_ACCESS_KEY|CONNECTION_STRING)$", re.IGNORECASE)


def mask_environment(env: Mapping[str, str], redactor: Redactor) -> None:
    """Mask the values of variables whose names say that they are secret."""
    for name, value in env.items():
        if _SECRET.search(name):
            redactor.add(value)


class MaskedCredentials:
    """A keychain whose secrets are masked from the moment they are found, also as basic authentication has them."""

    def __init__(self, credentials: Credentials, redactor: Redactor) -> None:
        self._credentials = credentials
        self._redactor = redactor

    def find(self, registry: str, repository: str, *, fresh: bool = False) -> Lookup:
        """See `builder.registry.authentication.Keychain`."""
        lookup = self._credentials.find(registry, repository, fresh=fresh)
        if lookup.credential:
            self._redactor.add(lookup.credential.secret)
            pair = f"{lookup.credential.username}:{lookup.credential.secret}"
            self._redactor.add(base64.b64encode(pair.encode()))
        return lookup
