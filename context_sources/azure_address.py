"""Addresses of blobs in Azure Storage."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

# The public cloud and the sovereign ones: China, Germany (closed in 2021), the US government. Accounts with a DNS zone
# endpoint lie at ACCOUNT.zNN.blob.storage.azure.net.
BLOB_HOST = re.compile(
    r"[a-z0-9-]+(\.z[0-9]+)?\.blob\.(core\.windows\.net|core\.chinacloudapi\.cn|core\.cloudapi\.de|core\.usgovcloudapi\.net"
    r"|chinacloudapi\.cn|cloudapi\.de|usgovcloudapi\.net|storage\.azure\.net)",
    re.IGNORECASE,
)
ENDPOINT = "AZURE_STORAGE_BLOB_ENDPOINT"


@dataclass(frozen=True, slots=True)
class BlobAddress:
    """`account_url` is scheme, host and, for custom endpoints, the account's path; `sas` is a signed query or ""."""

    account_url: str
    account: str
    container: str
    blob: str
    snapshot: str = ""
    version: str = ""
    sas: str = field(default="", repr=False)

    @property
    def shown(self) -> str:
        return f"{self.account_url}/{self.container}/{self.blob}"


def connection_string_parts(text: str) -> dict[str, str]:
    """The `Key=Value;` pairs of a storage connection string."""
    return {key: value for key, separator, value in (part.partition("=") for part in text.split(";")) if separator}


def custom_endpoint(environment: Mapping[str, str]) -> str:
    """The blob endpoint of an account that does not lie at Microsoft's addresses, without a trailing slash, or ""."""
    stated = environment.get(ENDPOINT, "")
    if not stated:
        stated = connection_string_parts(environment.get("AZURE_STORAGE_CONNECTION_STRING", "")).get("BlobEndpoint", "")
    return stated.rstrip("/")


def is_blob_url(location: str, environment: Mapping[str, str]) -> bool:
    """Whether `location`, an http(s) URL, names something in Azure Blob Storage."""
    if BLOB_HOST.fullmatch(urlsplit(location).hostname or ""):
        return True
    endpoint = custom_endpoint(environment)
    return bool(endpoint) and (location.startswith(endpoint + "/"))
