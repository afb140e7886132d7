"""A program that speaks the protocol of docker-credential-* for Google, Amazon and Azure, by their own SDKs.

`python cloud_helper.py google|ecr|acr get` reads a host from stdin and prints `{"Username", "Secret", "Expires"}`;
`Expires` (Unix time) is what docker's helpers lack. Imported by nobody.
"""

from __future__ import annotations

import base64
import datetime
import json
import os
import re
import subprocess
import sys
import time
from typing import Any

_EXTRAS = {"google": "gcs", "ecr": "s3", "acr": "azure"}
_NOTHING = "credentials not found in native keychain"
_ECR_REGION = re.compile(r"\.dkr[.-]ecr(-fips)?\.([a-z0-9-]+)\.")
_AZURE_MANAGEMENT = {
    "azurecr.io": "https://management.azure.com",
    "azurecr.cn": "https://management.chinacloudapi.cn",
    "azurecr.us": "https://management.usgovcloudapi.net",
    "azurecr.de": "https://management.microsoftazure.de",
}
_AZURE_CLOUDS = {
    "AZURECHINACLOUD": "https://login.chinacloudapi.cn",
    "AZUREUSGOVERNMENTCLOUD": "https://login.microsoftonline.us",
    "AZUREGERMANCLOUD": "https://login.microsoftonline.de",
}
_ACR_TOKEN_LIFE = 3 * 3600  # seconds that ACR documents for a refresh token
_TIMEOUT = 30


class NothingFound(Exception):
    """The chain has no credential here."""


def google(host: str) -> dict[str, Any]:
    """An access token of the application default credentials, else of a gcloud that is logged in."""
    import google.auth
    import google.auth.exceptions
    import google.auth.transport.requests

    try:
        credentials, _ = google.auth.default(scopes=["https://www.googleapis.com/auth/cloud-platform"])
    except google.auth.exceptions.DefaultCredentialsError as error:
        if os.environ.get("GOOGLE_APPLICATION_CREDENTIALS"):
            raise  # a credential that was asked for and cannot be used
        return _gcloud(error)
    credentials.refresh(google.auth.transport.requests.Request())  # type: ignore[no-untyped-call]
    # The SDK's expiry is UTC without saying so.
    expires = credentials.expiry.replace(tzinfo=datetime.UTC).timestamp() if credentials.expiry else time.time() + 1800
    return {"Username": "oauth2accesstoken", "Secret": credentials.token, "Expires": expires}


def _gcloud(error: Exception) -> dict[str, Any]:
    try:
        ended = subprocess.run(
            ["gcloud", "auth", "print-access-token"],  # the user's PATH says which one
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        raise NothingFound from error
    return {"Username": "oauth2accesstoken", "Secret": ended.stdout.strip(), "Expires": time.time() + 1800}


def ecr(host: str) -> dict[str, Any]:
    """An authorization token of Amazon's registry, private or public; it lives twelve hours."""
    import boto3
    import botocore.config
    import botocore.exceptions

    try:
        if host == "public.ecr.aws":
            client = boto3.client("ecr-public", region_name="us-east-1")
            data = client.get_authorization_token()["authorizationData"]
        else:
            match = _ECR_REGION.search(host)
            assert match is not None, host
            config = botocore.config.Config(use_fips_endpoint=bool(match[1]))
            client = boto3.client("ecr", region_name=match[2], config=config)
            data = client.get_authorization_token()["authorizationData"][0]
    except (botocore.exceptions.NoCredentialsError, botocore.exceptions.PartialCredentialsError) as error:
        raise NothingFound from error
    username, _, secret = base64.b64decode(data["authorizationToken"]).decode().partition(":")
    return {"Username": username, "Secret": secret, "Expires": data["expiresAt"].timestamp()}


def acr(host: str) -> dict[str, Any]:
    """A refresh token of Azure's registry, exchanged for a token of Entra ID."""
    import azure.core.exceptions
    import azure.identity
    import requests

    cloud = _AZURE_CLOUDS.get(os.environ.get("AZURE_ENVIRONMENT", "").upper())
    options = {"authority": cloud} if cloud else {}
    credential = azure.identity.DefaultAzureCredential(exclude_interactive_browser_credential=True, **options)
    management = next(url for domain, url in _AZURE_MANAGEMENT.items() if host.endswith(domain))
    try:
        token = credential.get_token(f"{management}/.default").token
    except azure.identity.CredentialUnavailableError as error:
        raise NothingFound from error
    except azure.core.exceptions.ClientAuthenticationError as error:
        if "DefaultAzureCredential failed to retrieve" in str(error) and "Authentication failed" not in str(error):
            raise NothingFound from error
        raise
    form = {"grant_type": "access_token", "service": host, "access_token": token}
    if os.environ.get("AZURE_TENANT_ID"):
        form["tenant"] = os.environ["AZURE_TENANT_ID"]
    answer = requests.post(f"https://{host}/oauth2/exchange", data=form, timeout=_TIMEOUT)
    answer.raise_for_status()
    return {"Username": "<token>", "Secret": answer.json()["refresh_token"], "Expires": time.time() + _ACR_TOKEN_LIFE}


def main(arguments: list[str]) -> int:
    """0 with a credential on stdout; 1 with the reason on stderr."""
    clouds = {"google": google, "ecr": ecr, "acr": acr}
    if len(arguments) != 2 or arguments[0] not in clouds or arguments[1] != "get":
        print("usage: cloud_helper google|ecr|acr get", file=sys.stderr)  # noqa: T201  # a program
        return 2
    host = sys.stdin.read().strip().removeprefix("https://").rstrip("/")
    try:
        print(json.dumps(clouds[arguments[0]](host)))  # noqa: T201
    except NothingFound:
        print(_NOTHING, file=sys.stderr)  # noqa: T201
        return 1
    except ImportError as error:
        hint = f"pip install limpet[{_EXTRAS[arguments[0]]}]"
        print(f"{error.name or error} is not installed; {hint}", file=sys.stderr)  # noqa: T201
        return 1
    except Exception as error:  # three SDKs with trees of their own; the parent shows the line
        text = " ".join(str(error).split())
        print(f"{type(error).__name__}: {text}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
