"""Credentials of clouds, by their SDKs' own chains."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from builder.errors import RegistryError
from builder.registry.credentials import Credentials
from builder.registry.credentials.clouds import serves
from tests.servers.certificates import Authority
from tests.servers.clouds import every_https_host, json_server

ECR = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """Nobody's credentials, and no metadata server to be asked."""
    return {
        "HOME": str(tmp_path),
        "PATH": os.environ["PATH"],
        "NO_GCE_CHECK": "true",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


@pytest.mark.parametrize(
    ("cloud", "host", "expected"),
    [
        ("google", "gcr.io", True),
        ("google", "eu.gcr.io", True),
        ("google", "europe-docker.pkg.dev", True),
        ("google", "gcr.io.example.com", False),
        ("google", "xgcr.io", False),
        ("google", "pkg.dev", False),
        ("ecr", ECR, True),
        ("ecr", "123456789012.dkr.ecr-fips.us-gov-west-1.amazonaws.com", True),
        ("ecr", "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn", True),
        ("ecr", "123456789012.dkr-ecr.eu-west-1.on.aws", True),
        ("ecr", "public.ecr.aws", True),
        ("ecr", "12345.dkr.ecr.eu-west-1.amazonaws.com", False),
        ("ecr", f"{ECR}.example.com", False),
        ("ecr", "s3.amazonaws.com", False),
        ("acr", "mine.azurecr.io", True),
        ("acr", "mine.azurecr.cn", True),
        ("acr", "mine.azurecr.us", True),
        ("acr", "azurecr.io", False),
        ("acr", "mine.azurecr.io.example.com", False),
        ("acr", "mcr.microsoft.com", False),
    ],
)
def test_hosts(cloud: str, host: str, expected: bool) -> None:
    assert serves(cloud, host) is expected


EXPIRES = int(time.time()) + 12 * 3600


def amazon(host: str, path: str, form: dict[str, str]) -> tuple[int, dict[str, Any]]:
    """GetAuthorizationToken of ECR."""
    data = {"authorizationToken": base64.b64encode(b"AWS:ecr-token").decode(), "expiresAt": EXPIRES}
    return 200, {"authorizationData": [data]}


@pytest.fixture
def aws(environ: dict[str, str]) -> Iterator[dict[str, str]]:
    """The environment with a key of Amazon's."""
    with json_server(amazon) as url:
        yield {
            **environ,
            "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_ENDPOINT_URL_ECR": url,
        }


def test_ecr(aws: dict[str, str]) -> None:
    lookup = Credentials(aws).find(ECR, "app")
    assert lookup.credential is not None
    assert (lookup.credential.kind, lookup.credential.username) == ("password", "AWS")
    assert (lookup.credential.secret, lookup.credential.expires) == ("ecr-token", EXPIRES)
    assert lookup.credential.origin == "the AWS credential chain"
    assert lookup.tried[-3:] == ("env", "google", "ecr")


def test_ecr_by_the_name_of_its_helper(aws: dict[str, str]) -> None:
    """kaniko's documentation has `"credsStore": "ecr-login"`; its image has that program, this one need not."""
    config = Path(aws["HOME"]) / ".docker/config.json"
    config.parent.mkdir()
    config.write_text('{"credsStore": "ecr-login"}')
    credentials = Credentials(aws, helpers=())
    assert credentials.find(ECR, "app").credential is not None
    assert credentials.find("index.docker.io", "library/debian").credential is None


@pytest.mark.parametrize("registry", ["europe-docker.pkg.dev", ECR, "public.ecr.aws"])
def test_a_chain_without_credentials_is_passed_over(environ: dict[str, str], registry: str) -> None:
    lookup = Credentials(environ).find(registry, "app")
    assert lookup.credential is None
    assert lookup.tried[-5:] == ("env", "google", "ecr", "acr", "gitlab")


def test_google(environ: dict[str, str], authority: Authority, tmp_path: Path) -> None:
    """A service account's key signs what its token_uri is asked for."""
    asked: list[dict[str, str]] = []

    def answer(host: str, path: str, form: dict[str, str]) -> tuple[int, dict[str, Any]]:
        asked.append(form)
        return 200, {"access_token": "ya29.token", "expires_in": 3600, "token_type": "Bearer"}

    with json_server(answer) as url:
        key = tmp_path / "key.json"
        account = {
            "type": "service_account",
            "project_id": "p",
            "private_key_id": "k",
            "private_key": authority.client("google").key.read_text(),
            "client_email": "me@p.iam.gserviceaccount.com",
            "client_id": "1",
            "token_uri": f"{url}/token",
        }
        key.write_text(json.dumps(account))
        found = Credentials({**environ, "GOOGLE_APPLICATION_CREDENTIALS": str(key)}).find("gcr.io", "p/app").credential
    assert found is not None
    assert (found.username, found.secret) == ("oauth2accesstoken", "ya29.token")
    assert 3000 < (found.expires or 0) - time.time() <= 3600
    assert asked[0]["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"


def test_gcloud(environ: dict[str, str], tmp_path: Path) -> None:
    program = tmp_path / "bin/gcloud"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\n[ "$*" = "auth print-access-token" ] && echo gcloud-token\n')
    program.chmod(0o755)
    environ["PATH"] = f"{program.parent}:{environ['PATH']}"
    found = Credentials(environ).find("gcr.io", "p/app").credential
    assert found is not None
    assert found.secret == "gcloud-token"


def test_a_chain_that_fails_says_so(environ: dict[str, str], tmp_path: Path) -> None:
    environ["GOOGLE_APPLICATION_CREDENTIALS"] = str(tmp_path / "key.json")
    (tmp_path / "key.json").write_text('{"type": "service_account", "private_key": "secret-key"}')
    with pytest.raises(RegistryError, match=r"Google application default credentials failed for gcr\.io") as caught:
        Credentials(environ).find("gcr.io", "p/app")
    assert "secret-key" not in caught.value.message


def azure(host: str, path: str, form: dict[str, str]) -> tuple[int, dict[str, Any]]:
    """Entra ID's discovery and token endpoints, and a registry's exchange of tokens."""
    base = f"https://{host}/tenant"
    if path.endswith("openid-configuration"):
        return 200, {
            "token_endpoint": f"{base}/oauth2/v2.0/token",
            "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
            "device_authorization_endpoint": f"{base}/oauth2/v2.0/devicecode",
            "issuer": f"{base}/v2.0",
        }
    if path.endswith("/discovery/instance"):
        return 200, {"tenant_discovery_endpoint": f"{base}/v2.0/.well-known/openid-configuration", "metadata": []}
    if path == "/oauth2/exchange":
        good = form == {
            "grant_type": "access_token",
            "service": "mine.azurecr.io",
            "access_token": "entra-token",
            "tenant": "tenant",
        }
        return (200, {"refresh_token": "acr-refresh-token"}) if good else (401, {})
    if path == "/tenant/oauth2/v2.0/token" and form.get("client_secret") == "client-secret":
        assert form["scope"].startswith("https://management.azure.com/.default")
        return 200, {"access_token": "entra-token", "expires_in": 3600, "token_type": "Bearer"}
    return 401, {"error": "invalid_client", "error_description": "AADSTS7000215: Invalid client secret provided."}


def test_acr(environ: dict[str, str], tmp_path: Path) -> None:
    authority = Authority(tmp_path / "azure")
    pair = authority.server("login.microsoftonline.com", "login.microsoft.com", "mine.azurecr.io")
    environ |= {"AZURE_CLIENT_ID": "client", "AZURE_TENANT_ID": "tenant", "AZURE_CLIENT_SECRET": "client-secret"}
    with every_https_host(pair, azure) as proxy:
        environ |= {"HTTPS_PROXY": proxy, "REQUESTS_CA_BUNDLE": str(authority.certificate)}
        found = Credentials(environ).find("mine.azurecr.io", "app").credential
        assert found is not None
        assert (found.kind, found.secret) == ("identity token", "acr-refresh-token")
        assert found.origin == "the Azure credential chain"
        environ["AZURE_CLIENT_SECRET"] = "wrong-secret"
        with pytest.raises(RegistryError, match="the Azure credential chain failed") as caught:
            Credentials(environ).find("mine.azurecr.io", "app")
        assert "wrong-secret" not in caught.value.message


def test_the_build_imports_no_sdk() -> None:
    sdks = "{'boto3', 'google', 'azure', 'requests'}"
    code = f"import sys, builder.registry.credentials; print(sorted({sdks} & set(sys.modules)))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout == "[]\n"
