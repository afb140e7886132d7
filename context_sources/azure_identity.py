"""Identities of Microsoft Entra ID for Azure Storage, by azure-identity: nothing here is asked for a token yet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from azure import identity  # 100 ms, and msal: this module is imported only when nothing simpler is set
from azure.core import exceptions as core

from builder.errors import ContextError
from context_sources.http_session import ca_bundle, proxies_for

AUTHORITIES = {
    "chinacloudapi.cn": "login.chinacloudapi.cn",
    "cloudapi.de": "login.microsoftonline.de",
    "usgovcloudapi.net": "login.microsoftonline.us",
}
PUBLIC_AUTHORITY = "login.microsoftonline.com"
SCOPE = "https://storage.azure.com/.default"


def identity_for(host: str, environment: Mapping[str, str]) -> tuple[Any, str]:
    """Workload identity, a service principal of the environment, else the managed identity; None is anonymous.

    `host` is the account's, whose cloud has the authority unless AZURE_AUTHORITY_HOST names one. Raises ContextError
    when a file that the environment names cannot be read.
    """
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
    tenant, client, secret, certificate, token_file = (
        environment.get(f"AZURE_{name}", "")
        for name in ("TENANT_ID", "CLIENT_ID", "CLIENT_SECRET", "CLIENT_CERTIFICATE_PATH", "FEDERATED_TOKEN_FILE")
    )
    if tenant and client and token_file:
        try:
            open(token_file).close()  # the library would take it for a broken connection
        except OSError as error:
            raise ContextError(
                f"AZURE_FEDERATED_TOKEN_FILE={token_file}: {error.strerror}",
                'the pod\'s label azure.workload.identity/use: "true" mounts it',
            ) from error
        found: Any = identity.WorkloadIdentityCredential(
            tenant_id=tenant, client_id=client, token_file_path=token_file, **options
        )
        return found, "the credential was the workload identity in AZURE_FEDERATED_TOKEN_FILE"
    if tenant and client and secret:
        return identity.ClientSecretCredential(tenant, client, secret, **options), (
            "the credential was AZURE_CLIENT_SECRET"
        )
    if tenant and client and certificate:
        return identity.CertificateCredential(tenant, client, certificate, **options), (
            "the credential was AZURE_CLIENT_CERTIFICATE_PATH"
        )
    return managed_identity(client, environment)


def managed_identity(client: str, environment: Mapping[str, str]) -> tuple[Any, str]:
    """That of the machine, `client` or its only one. Its service is on the machine itself: no proxy leads there."""
    managed = identity.ManagedIdentityCredential(client_id=client or None, **connections(environment, ""))
    # In a chain it first asks for a second whether there is a metadata service; alone it would try for minutes.
    chain = identity.ChainedTokenCredential(managed)
    try:
        chain.get_token(SCOPE)
    except (identity.CredentialUnavailableError, core.ClientAuthenticationError):
        return None, "no credential was found, requests are anonymous"
    return managed, "the credential was the managed identity"


def connections(environment: Mapping[str, str], url: str) -> dict[str, Any]:
    """The library's options for connections to `url`, by the environment's proxies and certificates only."""
    return {
        "use_env_settings": False,
        "proxies": proxies_for(url, environment) if url else {},
        "connection_verify": ca_bundle(environment) or True,
    }
