"""Identities of Microsoft Entra ID for Azure Storage, by azure-identity: nothing here is asked for a token yet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from azure import identity  # 100 ms, and msal: this module is imported only when nothing simpler is set
from azure.core import exceptions as core

from builder.errors import ContextError, UsageError
from context_sources.http_session import ca_bundle, proxies_for

AUTHORITIES = {
    "chinacloudapi.cn": "login.chinacloudapi.cn",
    "cloudapi.de": "login.microsoftonline.de",
    "usgovcloudapi.net": "login.microsoftonline.us",
}
PUBLIC_AUTHORITY = "login.microsoftonline.com"
SCOPE = "https://storage.azure.com/.default"
STATED = ("AZURE_FEDERATED_TOKEN_FILE", "AZURE_CLIENT_SECRET", "AZURE_CLIENT_CERTIFICATE_PATH")
ANONYMOUS = "no credential was found, requests are anonymous"


def identity_for(account_url: str, environment: Mapping[str, str]) -> tuple[Any, str]:
    """Workload identity, a service principal of the environment, else the managed identity; None is anonymous.

    The account's cloud has the authority unless AZURE_AUTHORITY_HOST names one. Raises ContextError when a file that
    the environment names cannot be read, UsageError for an identity with an account that is not reached by https: the
    library sends tokens no other way.
    """
    tenant, client = environment.get("AZURE_TENANT_ID", ""), environment.get("AZURE_CLIENT_ID", "")
    stated = next((name for name in STATED if environment.get(name)), "") if tenant and client else ""
    if not account_url.startswith("https://"):
        if stated:
            raise UsageError(
                f"--context {account_url} is not https, and the tokens of the identity in {stated} go over https only",
                "use an https endpoint, or set AZURE_STORAGE_ACCESS_KEY or a SAS (AZURE_STORAGE_SAS_TOKEN, or in the "
                "URL)",
            )
        return None, f"{ANONYMOUS}: an identity's tokens go over https only"
    host = urlsplit(account_url).hostname or ""
    authority = environment.get("AZURE_AUTHORITY_HOST") or next(
        (login for suffix, login in AUTHORITIES.items() if host.endswith(suffix)), PUBLIC_AUTHORITY
    )
    name = authority.partition("://")[2] or authority
    options = {
        **connections(environment, f"https://{name}"),
        "authority": authority,
        # It asks Microsoft whether a host is an authority, which of private ones it does not know.
        "disable_instance_discovery": name.rstrip("/") not in (*AUTHORITIES.values(), PUBLIC_AUTHORITY),
    }
    if not stated:
        return managed_identity(client, environment)
    value = environment[stated]
    if stated == "AZURE_CLIENT_SECRET":
        found: Any = identity.ClientSecretCredential(tenant, client, value, **options)
        return found, f"the credential was {stated}"
    if stated == "AZURE_CLIENT_CERTIFICATE_PATH":
        return identity.CertificateCredential(tenant, client, value, **options), f"the credential was {stated}"
    try:
        open(value).close()  # the library would take it for a broken connection
    except OSError as error:
        raise ContextError(
            f"{stated}={value}: {error.strerror}", 'the pod\'s label azure.workload.identity/use: "true" mounts it'
        ) from error
    found = identity.WorkloadIdentityCredential(tenant_id=tenant, client_id=client, token_file_path=value, **options)
    return found, f"the credential was the workload identity in {stated}"


def managed_identity(client: str, environment: Mapping[str, str]) -> tuple[Any, str]:
    """That of the machine, `client` or its only one. Its service is on the machine itself: no proxy leads there."""
    managed = identity.ManagedIdentityCredential(client_id=client or None, **connections(environment, ""))
    # In a chain it first asks for a second whether there is a metadata service; alone it would try for minutes.
    chain = identity.ChainedTokenCredential(managed)
    try:
        chain.get_token(SCOPE)
    except (identity.CredentialUnavailableError, core.ClientAuthenticationError):
        return None, ANONYMOUS
    return managed, "the credential was the managed identity"


def connections(environment: Mapping[str, str], url: str) -> dict[str, Any]:
    """The library's options for connections to `url`, by the environment's proxies and certificates only."""
    return {
        "use_env_settings": False,
        "proxies": proxies_for(url, environment) if url else {},
        "connection_verify": ca_bundle(environment) or True,
    }
