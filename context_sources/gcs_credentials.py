"""What requests to Cloud Storage are authorized by: an access token, or nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from builder.errors import UsageError

ENDPOINT = "https://storage.googleapis.com"


def endpoint_of(environment: Mapping[str, str]) -> str:
    """Where the API is: STORAGE_EMULATOR_HOST as in Google's own clients, else Google."""
    stated = environment.get("STORAGE_EMULATOR_HOST", "").rstrip("/")
    if stated and "://" not in stated:
        stated = f"http://{stated}"
    return stated or ENDPOINT


class Credential(Protocol):
    """`used` says what it is, in words. Both methods raise Broken or Refused."""

    @property
    def used(self) -> str: ...

    def headers(self) -> dict[str, str]: ...

    def renewed(self, refused: Mapping[str, str]) -> dict[str, str]:
        """What to send after an answer of 401 to `refused`; the same when nothing else can be sent."""
        ...


@dataclass(frozen=True, slots=True)
class Anonymous:
    used: str

    def headers(self) -> dict[str, str]:
        return {}

    def renewed(self, refused: Mapping[str, str]) -> dict[str, str]:
        return dict(refused)


def credential_for(environment: Mapping[str, str]) -> Credential:
    """The key file that is stated, gcloud's, the pod's service account; anonymous when there are none.

    Raises ContextError for a file that is no credential, UsageError when there is one and google-auth is missing.
    """
    stated = environment.get("GOOGLE_APPLICATION_CREDENTIALS", "")
    gcloud = environment.get("CLOUDSDK_CONFIG") or f"{environment.get('HOME', '')}/.config/gcloud"
    known = Path(gcloud, "application_default_credentials.json")
    if not stated and known.is_file():
        stated = str(known)
    emulated = endpoint_of(environment) != ENDPOINT
    if emulated and not stated:
        return Anonymous("no credential was sent to STORAGE_EMULATOR_HOST")
    try:
        from context_sources import gcs_tokens
    except ModuleNotFoundError as error:
        if not stated:
            return Anonymous(f"requests are anonymous: the library for credentials ({error.name}) is not installed")
        raise UsageError(
            f"the credential {stated} needs a library that is not installed: {error.name}", "pip install limpet[gcs]"
        ) from error
    found = gcs_tokens.of_file(stated, environment) if stated else gcs_tokens.of_pod()
    return found or Anonymous("no credential was found, requests are anonymous")
