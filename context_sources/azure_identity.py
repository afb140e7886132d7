"""Identities of Microsoft Entra ID for Azure Storage, by azure-identity."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import requests
from azure import identity  # 100 ms, and msal: this module is imported only when nothing simpler is set
from azure.core import exceptions as core
from azure.core.pipeline.transport import RequestsTransport

from builder.errors import ContextError, UsageError
from context_sources.azure_credentials import ANONYMOUS, IDENTITIES, Anonymous, Credential
from context_sources.http_body import TIMEOUT, TRANSIENT_STATUS
from context_sources.http_environment import proxies_for
from context_sources.http_session import configure
from context_sources.retry import Broken, Refused

AUTHORITIES = {
    "chinacloudapi.cn": "login.chinacloudapi.cn",
    "cloudapi.de": "login.microsoftonline.de",
    "usgovcloudapi.net": "login.microsoftonline.us",
}
PUBLIC_AUTHORITY = "login.microsoftonline.com"
SCOPE = "https://storage.azure.com/.default"
SAID = re.compile(r"AADSTS\d+: [^\r\n]{0,300}")
EARLY = 300  # seconds before a token's end a new one is asked for
logging.getLogger("azure").addHandler(logging.NullHandler())  # else its warnings go to standard error by themselves


@dataclass(slots=True)
class Tokens:
    """Bearer tokens by a credential of the library's, for any number of threads."""

    used: str
    credential: Any = field(repr=False)
    sas: str = ""
    _token: Any = field(default=None, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def headers(self, *_: object) -> dict[str, str]:
        with self._lock:
            if self._token is None or self._token.expires_on < time.time() + EARLY:
                self._token = self._asked()
            return {"Authorization": f"Bearer {self._token.token}"}

    def _asked(self) -> Any:
        try:
            return self.credential.get_token(SCOPE)
        except (core.ServiceRequestError, core.ServiceResponseError, core.IncompleteReadError, OSError) as error:
            raise Broken(f"the token's server did not answer ({type(error).__name__})") from error
        except core.AzureError as error:
            if said := SAID.search(error.message or ""):
                raise Refused(
                    f"Microsoft Entra ID gives no token: {said[0]}",
                    "check AZURE_TENANT_ID and AZURE_CLIENT_ID, and what the application trusts: its federated "
                    "credentials or its secret",
                ) from error
            status = getattr(error, "status_code", None)
            if status in TRANSIENT_STATUS:
                raise Broken(f"the token's server answers {status}") from error
            answer = f": the token's server answers {status}" if status else ""
            raise Refused(
                f"no request can be made with the credential{answer}",
                "check that it is complete: a client secret belongs to its tenant",
            ) from error


def identity_for(account_url: str, environment: Mapping[str, str]) -> Credential:
    """Workload identity, a service principal of the environment, else the managed identity, else none.

    The account's cloud has the authority unless AZURE_AUTHORITY_HOST names one. Raises ContextError when a file that
    the environment names cannot be used, UsageError for an identity with an account that is not reached by https:
    tokens are sent no other way.
    """
    tenant, client = environment.get("AZURE_TENANT_ID", ""), environment.get("AZURE_CLIENT_ID", "")
    stated = next((name for name in IDENTITIES if environment.get(name)), "") if tenant and client else ""
    if not account_url.startswith("https://"):
        if stated:
            raise UsageError(
                f"--context {account_url} is not https, and the tokens of the identity in {stated} go over https only",
                "use an https endpoint, or set AZURE_STORAGE_ACCESS_KEY or a SAS (AZURE_STORAGE_SAS_TOKEN, or in the "
                "URL)",
            )
        return Anonymous(f"{ANONYMOUS}: an identity's tokens go over https only")
    host = urlsplit(account_url).hostname or ""
    authority = environment.get("AZURE_AUTHORITY_HOST") or next(
        (login for suffix, login in AUTHORITIES.items() if host.endswith(suffix)), PUBLIC_AUTHORITY
    )
    name = authority.partition("://")[2] or authority
    options = {
        **connections(environment, f"https://{name}"),
        "authority": authority,
        "retry_total": 0,  # Limpet tries again itself
        # It asks Microsoft whether a host is an authority, which of private ones it does not know.
        "disable_instance_discovery": name.rstrip("/") not in (*AUTHORITIES.values(), PUBLIC_AUTHORITY),
    }
    if not stated:
        return managed_identity(client, environment)
    try:
        return stated_identity(stated, environment, options)
    except OSError as error:
        hint = (
            'the pod\'s label azure.workload.identity/use: "true" mounts it' if stated == IDENTITIES[0] else "mount it"
        )
        raise ContextError(f"{stated}={environment[stated]}: {error.strerror}", hint) from error
    except ValueError as error:  # a tenant that cannot be one, a certificate that is none
        raise ContextError(
            f"no identity can be made of {stated}",
            "check AZURE_TENANT_ID and AZURE_CLIENT_ID; a certificate is a PEM file with its key",
        ) from error


def stated_identity(stated: str, environment: Mapping[str, str], options: Mapping[str, Any]) -> Tokens:
    tenant, client, value = environment["AZURE_TENANT_ID"], environment["AZURE_CLIENT_ID"], environment[stated]
    if stated == "AZURE_CLIENT_SECRET":
        return Tokens(f"the credential was {stated}", identity.ClientSecretCredential(tenant, client, value, **options))
    if stated == "AZURE_CLIENT_CERTIFICATE_PATH":
        return Tokens(f"the credential was {stated}", identity.CertificateCredential(tenant, client, value, **options))
    open(value).close()  # the library would take it for a broken connection
    found = identity.WorkloadIdentityCredential(tenant_id=tenant, client_id=client, token_file_path=value, **options)
    return Tokens(f"the credential was the workload identity in {stated}", found)


def managed_identity(client: str, environment: Mapping[str, str]) -> Credential:
    """That of the machine, `client` or its only one. Its service is on the machine itself: no proxy leads there."""
    managed = identity.ManagedIdentityCredential(client_id=client or None, **connections(environment, ""))
    # In a chain it first asks for a second whether there is a metadata service; alone it would try for minutes.
    chain = identity.ChainedTokenCredential(managed)
    try:
        chain.get_token(SCOPE)
    except (identity.CredentialUnavailableError, core.ClientAuthenticationError):
        return Anonymous(ANONYMOUS)
    return Tokens("the credential was the managed identity", managed)


def connections(environment: Mapping[str, str], url: str) -> dict[str, Any]:
    """The library's options for connections to `url`, by the environment's proxies and certificates only."""
    session = requests.Session()
    configure(session, environment)
    return {
        "use_env_settings": False,
        "proxies": proxies_for(url, environment) if url else {},
        "transport": RequestsTransport(session=session, connection_timeout=TIMEOUT[0], read_timeout=TIMEOUT[1]),
    }
