"""Contexts in Azure Blob Storage: Azurite, which checks shared keys and SAS."""

from __future__ import annotations

import datetime
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from azure.storage.blob import BlobServiceClient, ContainerSasPermissions, generate_container_sas

from builder.errors import ContextError, UsageError
from context_sources.azure import parse
from context_sources.objects import IN_PARALLEL
from tests.context_sources.conftest import FILES, QUICK, Fetcher, archive_of, tree
from tests.servers.azurite import AzuriteServer, azurite
from tests.servers.certificates import Authority
from tests.servers.clouds import json_server
from tests.servers.entra import CLIENT, TENANT, Entra
from tests.servers.front import Answer, CutResponse, Front, Together, WithQuery, front

BIG_FILES = {**FILES, "big": os.urandom(3 << 20)}
BIG = archive_of(BIG_FILES)
WRONG = "d3Jvbmcta2V5LXdyb25nLWtleQ=="


def fill(server: AzuriteServer, **options: object) -> BlobServiceClient:
    """`private` and, open to all, `public`."""
    client = BlobServiceClient(server.url, {"account_name": server.account, "account_key": server.key}, **options)
    for name, access in (("private", None), ("public", "blob")):
        container = client.create_container(name, public_access=access)
        container.upload_blob("big.tar", BIG)
        container.upload_blob("context.tar.gz", archive_of(FILES))
        container.upload_blob("dir/a b.tar", archive_of(FILES))
        for path, data in {**FILES, ".dockerignore": b"*.c\n"}.items():
            container.upload_blob(f"tree/{path}", data)
    return client


@pytest.fixture(scope="module")
def client(azure: AzuriteServer) -> BlobServiceClient:
    return fill(azure)


@pytest.fixture
def site(azure: AzuriteServer, client: BlobServiceClient) -> Iterator[Front]:
    with front(azure.url.split("/")[2]) as running:
        yield running


@pytest.fixture
def url(site: Front, azure: AzuriteServer) -> str:
    return f"http://{site.host}/{azure.account}"


@pytest.fixture
def environment(url: str, azure: AzuriteServer) -> dict[str, str]:
    return {"AZURE_STORAGE_BLOB_ENDPOINT": url, "AZURE_STORAGE_ACCESS_KEY": azure.key}


def test_an_archive(url: str, environment: dict[str, str], client: BlobServiceClient, fetcher: Fetcher) -> None:
    fetched = fetcher(f"{url}/private/big.tar", environment, allow_http=True)
    assert tree(fetched.path) == BIG_FILES
    etag = client.get_blob_client("private", "big.tar").get_blob_properties().etag.strip('"')
    assert (fetched.source, fetched.revision_kind, fetched.revision) == (f"{url}/private/big.tar", "etag", etag)


@pytest.mark.parametrize("blob", ["", "/", "/context.tar.gz", "/dir/a%20b.tar"])
def test_other_addresses(url: str, environment: dict[str, str], fetcher: Fetcher, blob: str) -> None:
    assert tree(fetcher(f"{url}/private{blob}", environment, allow_http=True).path) == FILES


def test_addresses() -> None:
    address = parse("https://acc.blob.core.windows.net/c/d/b.tar?sv=1&sig=a%2Bb&versionid=2024", {})
    assert (address.account_url, address.account) == ("https://acc.blob.core.windows.net", "acc")
    assert (address.container, address.blob, address.version) == ("c", "d/b.tar", "2024")
    assert address.sas == "sv=1&sig=a%2Bb"
    assert "a%2Bb" not in repr(address)
    with pytest.raises(UsageError):
        parse("https://acc.blob.core.windows.net/", {})


def test_plain_http_must_be_allowed(url: str, environment: dict[str, str], fetcher: Fetcher) -> None:
    with pytest.raises(UsageError) as caught:
        fetcher(f"{url}/private/big.tar", environment)
    assert "--context-allow-http" in caught.value.hint


def test_a_prefix_is_a_tree(url: str, environment: dict[str, str], site: Front, fetcher: Fetcher) -> None:
    fetched = fetcher(f"{url}/private/tree/", environment, allow_http=True)
    assert tree(fetched.path) == {**FILES, ".dockerignore": b"*.c\n"}
    site.seen.clear()
    ignoring = fetcher(
        f"{url}/private/tree/",
        environment,
        allow_http=True,
        make_filter=lambda text: lambda path: not path.endswith(".c"),
    )
    assert "src/main.c" not in tree(ignoring.path)
    assert site.count("GET", "main.c") == 0


def sas(server: AzuriteServer, key: str) -> str:
    return generate_container_sas(
        server.account,
        "private",
        account_key=key,
        permission=ContainerSasPermissions(read=True, list=True),
        expiry=datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1),
    )


def test_a_sas_in_the_url(url: str, azure: AzuriteServer, fetcher: Fetcher) -> None:
    environment = {"AZURE_STORAGE_BLOB_ENDPOINT": url}
    signed = sas(azure, azure.key)
    fetched = fetcher(f"{url}/private/big.tar?{signed}", environment, allow_http=True)
    assert tree(fetched.path) == BIG_FILES
    assert fetched.source == f"{url}/private/big.tar"
    assert tree(fetcher(f"{url}/private/tree/?{signed}", environment, allow_http=True).path).keys() >= FILES.keys()
    with pytest.raises(ContextError, match=r"403 .*the credential was the SAS in the URL"):
        fetcher(f"{url}/private/big.tar?{sas(azure, WRONG)}", environment, allow_http=True)
    assert "sig=" not in fetcher.log


def test_listings_of_many_pages(
    url: str, azure: AzuriteServer, client: BlobServiceClient, site: Front, fetcher: Fetcher
) -> None:
    """A page has at most 5,000 names, here 7: a SAS does not cover the rest of the query."""
    expected = {f"{number % 7}/{number}": b"%d" % number for number in range(40)}
    for path, data in expected.items():
        client.get_container_client("private").upload_blob(f"many/{path}", data)
    site.fault(WithQuery("maxresults=7"), "GET", "comp=list", times=99)
    signed = f"{url}/private/many/?{sas(azure, azure.key)}"
    assert tree(fetcher(signed, {"AZURE_STORAGE_BLOB_ENDPOINT": url}, allow_http=True).path) == expected
    assert site.count("GET", "marker=") >= 5


def test_connection_strings(url: str, azure: AzuriteServer, fetcher: Fetcher) -> None:
    keys = f"DefaultEndpointsProtocol=http;AccountName={azure.account};BlobEndpoint={url};"
    for credential in (f"AccountKey={azure.key}", f"SharedAccessSignature={sas(azure, azure.key)}"):
        environment = {"AZURE_STORAGE_CONNECTION_STRING": keys + credential}
        assert tree(fetcher(f"{url}/private/big.tar", environment, allow_http=True).path) == BIG_FILES
    environment = {"AZURE_STORAGE_BLOB_ENDPOINT": url, "AZURE_STORAGE_SAS_TOKEN": "?" + sas(azure, azure.key)}
    assert tree(fetcher(f"{url}/private/big.tar", environment, allow_http=True).path) == BIG_FILES


def test_refusals_name_blob_and_credential(url: str, environment: dict[str, str], fetcher: Fetcher) -> None:
    wrong = {**environment, "AZURE_STORAGE_ACCESS_KEY": WRONG}
    with pytest.raises(
        ContextError, match=r"private/big.tar: 403 .*the credential was AZURE_STORAGE_ACCESS_KEY"
    ) as caught:
        fetcher(f"{url}/private/big.tar", wrong, allow_http=True)
    assert "Storage Blob Data Reader" in caught.value.hint
    assert WRONG not in str(caught.value)
    with pytest.raises(ContextError, match=r"403"):
        fetcher(f"{url}/private/tree/", wrong, allow_http=True)
    with pytest.raises(ContextError, match=r"no request can be made.*AZURE_STORAGE_ACCESS_KEY"):
        fetcher(f"{url}/private/tree/", {**environment, "AZURE_STORAGE_ACCESS_KEY": "12345"}, allow_http=True)


def test_what_is_not_there(url: str, environment: dict[str, str], fetcher: Fetcher) -> None:
    for path in ("private/absent.tar", "absent/big.tar"):
        with pytest.raises(ContextError, match=f"{path}: no such blob or container"):
            fetcher(f"{url}/{path}", environment, allow_http=True)
    with pytest.raises(ContextError, match=r"no object begins with this prefix"):
        fetcher(f"{url}/private/absent/", environment, allow_http=True)


def test_a_cut_connection_goes_on(url: str, environment: dict[str, str], site: Front, fetcher: Fetcher) -> None:
    site.fault(CutResponse(1_000_000), "GET", "big.tar", times=2)
    assert tree(fetcher(f"{url}/private/big.tar", environment, allow_http=True).path) == BIG_FILES
    assert site.count("GET", "big.tar") >= 3


def test_attempts_end(url: str, environment: dict[str, str], site: Front, fetcher: Fetcher) -> None:
    site.fault(Answer(503), times=99)
    with pytest.raises(ContextError, match=f"503.*{QUICK.attempts} times") as caught:
        fetcher(f"{url}/private/big.tar", environment, allow_http=True)
    assert caught.value.transient


def test_tls_with_an_authority_of_ones_own(tmp_path: Path, authority: Authority, fetcher: Fetcher) -> None:
    with azurite(tmp_path / "tls", tls=authority.server()) as server:
        fill(server, connection_verify=str(authority.certificate))
        environment = {"AZURE_STORAGE_BLOB_ENDPOINT": server.url, "AZURE_STORAGE_ACCESS_KEY": server.key}
        with pytest.raises(ContextError, match=r"big\.tar: the server's certificate is not trusted") as caught:
            fetcher(f"{server.url}/private/big.tar", environment)
        assert "SSL_CERT_FILE" in caught.value.hint
        environment["SSL_CERT_FILE"] = str(authority.certificate)
        assert tree(fetcher(f"{server.url}/private/big.tar", environment).path) == BIG_FILES


def test_an_identity_of_a_cloud_of_ones_own(tmp_path: Path, authority: Authority, fetcher: Fetcher) -> None:
    """An authority that Microsoft does not know is believed when the environment names it."""
    tls = authority.server()
    entra, failures = Entra(assertion="right-assertion"), [503, 429]

    def answer(host: str, path: str, form: dict[str, str]) -> tuple[int, dict[str, Any]]:
        if form and failures:
            return failures.pop(), {"error": "temporarily_unavailable"}
        return entra.answer(host, path, form)

    (tmp_path / "token").write_text("right-assertion")
    with azurite(tmp_path / "tls", tls=tls) as server, json_server(answer, tls=tls) as url:
        fill(server, connection_verify=str(authority.certificate))
        environment = {
            "AZURE_STORAGE_BLOB_ENDPOINT": server.url,
            "AZURE_AUTHORITY_HOST": url,
            "AZURE_TENANT_ID": TENANT,
            "AZURE_CLIENT_ID": CLIENT,
            "AZURE_FEDERATED_TOKEN_FILE": str(tmp_path / "token"),
            "SSL_CERT_FILE": str(authority.certificate),
        }
        assert tree(fetcher(f"{server.url}/private/big.tar", environment).path) == BIG_FILES
        assert tree(fetcher(f"{server.url}/private/tree/", environment).path).keys() >= FILES.keys()
        assert {form["client_assertion"] for form in entra.asked} == {"right-assertion"}
        assert "the token's server answers 503; trying again" in fetcher.log
        del environment["SSL_CERT_FILE"]
        with pytest.raises(ContextError, match=r"the token's server did not answer"):
            fetcher(f"{server.url}/private/big.tar", environment)
        environment["SSL_CERT_DIR"] = str(authority.certificate.parent)
        assert tree(fetcher(f"{server.url}/private/big.tar", environment).path) == BIG_FILES
        (tmp_path / "token").write_text("wrong-assertion")
        with pytest.raises(ContextError, match=r"AADSTS700213.*the workload identity in AZURE_FEDERATED") as caught:
            fetcher(f"{server.url}/private/big.tar", environment)
        assert "wrong-assertion" not in str(caught.value) + fetcher.log
        (tmp_path / "token").unlink()
        with pytest.raises(ContextError, match=r"AZURE_FEDERATED_TOKEN_FILE=.*No such file or directory"):
            fetcher(f"{server.url}/private/big.tar", environment)


@pytest.mark.parametrize(
    "stated", ["AZURE_FEDERATED_TOKEN_FILE", "AZURE_CLIENT_SECRET", "AZURE_CLIENT_CERTIFICATE_PATH"]
)
def test_no_token_goes_over_plain_http(url: str, site: Front, fetcher: Fetcher, stated: str) -> None:
    environment = {
        "AZURE_STORAGE_BLOB_ENDPOINT": url,
        "AZURE_TENANT_ID": TENANT,
        "AZURE_CLIENT_ID": CLIENT,
        stated: "secret-value",
    }
    with pytest.raises(UsageError, match=f"is not https, .* the identity in {stated} go over https only") as caught:
        fetcher(f"{url}/public/big.tar", environment, allow_http=True)
    assert "AZURE_STORAGE_ACCESS_KEY" in caught.value.hint
    assert "secret-value" not in str(caught.value) + fetcher.log
    assert not site.seen


def test_objects_come_at_once_by_connections_that_stay(
    url: str, environment: dict[str, str], client: BlobServiceClient, site: Front, fetcher: Fetcher
) -> None:
    expected = {str(number): b"%d" % number for number in range(3 * IN_PARALLEL)}
    for path, data in expected.items():
        client.get_container_client("private").upload_blob(f"parallel/{path}", data)
    site.fault(Together(threading.Barrier(IN_PARALLEL)), "GET", "/parallel/", times=len(expected))
    assert tree(fetcher(f"{url}/private/parallel/", environment, allow_http=True).path) == expected
    assert site.connections <= IN_PARALLEL + 1  # one has listed


def test_without_a_credential(url: str, fetcher: Fetcher) -> None:
    """Public containers can be read; private ones are not there."""
    environment = {"AZURE_STORAGE_BLOB_ENDPOINT": url}
    assert tree(fetcher(f"{url}/public/big.tar", environment, allow_http=True).path) == BIG_FILES
    with pytest.raises(
        ContextError, match=r"(no such blob|403).*; no credential was found, requests are anonymous"
    ) as caught:
        fetcher(f"{url}/private/big.tar", environment, allow_http=True)
    assert "AZURE_STORAGE_ACCESS_KEY" in caught.value.hint
