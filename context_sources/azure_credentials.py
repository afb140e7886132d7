"""What requests to Azure Blob Storage are authorized by: the account's key, a SAS, a token, or nothing."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from builder.errors import UsageError
from context_sources.azure_address import BlobAddress, connection_string_parts
from context_sources.retry import Refused

# Those of a string to sign, in its order.
SIGNED_HEADERS = (
    *("content-encoding", "content-language", "content-length", "content-md5", "content-type", "date"),
    *("if-modified-since", "if-match", "if-none-match", "if-unmodified-since", "range"),
)
# What an identity of the environment proves itself by.
IDENTITIES = ("AZURE_FEDERATED_TOKEN_FILE", "AZURE_CLIENT_SECRET", "AZURE_CLIENT_CERTIFICATE_PATH")
ANONYMOUS = "no credential was found, requests are anonymous"


class Credential(Protocol):
    """`used` is what it is, in words; `sas` a signed query that is appended to every URL, "" for none."""

    @property
    def used(self) -> str: ...
    @property
    def sas(self) -> str: ...
    def headers(self, method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str]) -> dict[str, str]:
        """What to add to the `headers` of a request. `path` is percent-encoded as it is sent, `query` is not.

        Raises Refused when there is nothing to add, Broken when there may be later.
        """
        ...


@dataclass(frozen=True, slots=True)
class Anonymous:
    """For containers that are public."""

    used: str
    sas: str = ""

    def headers(self, *_: object) -> dict[str, str]:
        return {}


@dataclass(frozen=True, slots=True)
class SharedAccessSignature:
    """Lies in the URL and needs nothing else."""

    used: str
    sas: str = field(repr=False)

    def headers(self, *_: object) -> dict[str, str]:
        return {}


@dataclass(frozen=True, slots=True)
class SharedKey:
    """https://learn.microsoft.com/rest/api/storageservices/authorize-with-shared-key; `key` is base64."""

    used: str
    account: str
    key: str = field(repr=False)
    sas: str = ""

    def headers(self, method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str]) -> dict[str, str]:
        try:
            key = base64.b64decode(self.key, validate=True)
        except (binascii.Error, ValueError) as error:  # ValueError: not ASCII
            raise Refused("no request can be made with the credential", "the key of an account is base64") from error
        text = string_to_sign(self.account, method, path, query, headers)
        signature = base64.b64encode(hmac.digest(key, text.encode(), hashlib.sha256)).decode("ascii")
        return {"Authorization": f"SharedKey {self.account}:{signature}"}


def string_to_sign(account: str, method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str]) -> str:
    """Of a request without a body, whose date is in x-ms-date. Names in `query` are lower case."""
    lower = {name.lower(): value.strip() for name, value in headers.items()}
    standard = [lower.get(name, "") for name in SIGNED_HEADERS]
    own = [f"{name}:{value}" for name, value in sorted(lower.items()) if name.startswith("x-ms-")]
    # An emulator's path begins with the account's name, which then is there twice: that is what it expects.
    resource = [f"/{account}{path}", *(f"{name}:{value}" for name, value in sorted(query.items()))]
    return "\n".join([method, *standard, *own, *resource])


def credential_for(address: BlobAddress, environment: Mapping[str, str]) -> Credential:
    """The most explicit one. Raises UsageError or ContextError for an identity that cannot be used."""
    if address.sas:
        return SharedAccessSignature("the credential was the SAS in the URL", address.sas)
    parts = connection_string_parts(environment.get("AZURE_STORAGE_CONNECTION_STRING", ""))
    for key, account, name in (
        (environment.get("AZURE_STORAGE_ACCESS_KEY", ""), address.account, "AZURE_STORAGE_ACCESS_KEY"),
        (environment.get("AZURE_STORAGE_KEY", ""), address.account, "AZURE_STORAGE_KEY"),
        (
            parts.get("AccountKey", ""),
            parts.get("AccountName", address.account),
            "the key in AZURE_STORAGE_CONNECTION_STRING",
        ),
    ):
        if key:
            return SharedKey(f"the credential was {name}", account, key.strip())
    for token, name in (
        (environment.get("AZURE_STORAGE_SAS_TOKEN", ""), "AZURE_STORAGE_SAS_TOKEN"),
        (parts.get("SharedAccessSignature", ""), "the SAS in AZURE_STORAGE_CONNECTION_STRING"),
    ):
        if token:
            return SharedAccessSignature(f"the credential was {name}", token.strip().lstrip("?"))
    try:
        from context_sources.azure_identity import identity_for
    except ModuleNotFoundError as error:
        stated = next((name for name in IDENTITIES if environment.get(name)), "")
        if not stated:
            return Anonymous(f"{ANONYMOUS}: the library for identities ({error.name}) is not installed")
        raise UsageError(
            f"the identity in {stated} needs a library that is not installed: {error.name}",
            "pip install limpet[azure], or set AZURE_STORAGE_ACCESS_KEY or a SAS",
        ) from error
    return identity_for(address.account_url, environment)
