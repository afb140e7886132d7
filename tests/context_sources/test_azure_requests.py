"""Requests to Blob Storage: signatures, as Azurite checks them, and answers that are none."""

from __future__ import annotations

import base64
import hashlib
import hmac
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlsplit

import pytest
from azure.storage.blob import BlobServiceClient
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.errors import ContextError, UsageError
from context_sources import azure_listing
from context_sources.azure import Store, parse
from context_sources.azure_credentials import SharedKey, string_to_sign
from context_sources.azure_listing import NotAListing, read_page
from context_sources.objects import StoredObject
from context_sources.retry import Broken
from context_sources.source import FetchSettings
from tests.context_sources.conftest import FILES, QUICK, Fetcher, archive_of, tree
from tests.context_sources.places import azure_client
from tests.servers.azurite import AzuriteServer
from tests.servers.front import Answer, Front, front

CONTAINER = "signed"
# What a URL, a query, a signature or XML may take for something else, and what is more than one byte.
LETTERS = "ab1 +%?#&=;:,@!$'()*[]{}^~`|<>\"-_.äß漢😀%2F%25"
PARTS = st.text(LETTERS, min_size=1, max_size=12).filter(lambda part: part.strip() == part and not part.endswith("."))
NAMES = st.lists(PARTS, min_size=1, max_size=3).map("/".join)


@pytest.fixture(scope="module")
def client(azure: AzuriteServer) -> BlobServiceClient:
    client: BlobServiceClient = azure_client(azure)
    client.create_container(CONTAINER)
    return client


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


def store_of(server: AzuriteServer) -> Store:
    environment = {"AZURE_STORAGE_BLOB_ENDPOINT": server.url, "AZURE_STORAGE_ACCESS_KEY": server.key}
    address = parse(f"{server.url}/{CONTAINER}/x", environment)
    return Store(address, FetchSettings(environment=environment, retry=QUICK, allow_http=True))


@pytest.fixture(scope="module")
def store(azure: AzuriteServer, client: BlobServiceClient) -> Store:
    return store_of(azure)


@settings(max_examples=50, deadline=None)
@given(name=NAMES, data=st.binary(min_size=2, max_size=40))
def test_blobs_of_every_name(
    azure: AzuriteServer, client: BlobServiceClient, store: Store, name: str, data: bytes
) -> None:
    """They are listed, and read from the beginning and from elsewhere, with a signature that is right."""
    client.get_blob_client(CONTAINER, name).upload_blob(data, overwrite=True)
    (listed,) = [found for found in store.listing(name, name) if found.key == name]
    assert listed.size == len(data)
    for offset in (0, 1):
        body = store.open_listed(listed, offset)
        assert (body.offset, body.total, b"".join(body.chunks)) == (offset, len(data), data[offset:])
    address = parse(f"{azure.url}/{CONTAINER}/{quote(name)}", {"AZURE_STORAGE_BLOB_ENDPOINT": azure.url})
    assert address.blob == name


def test_the_string_to_sign() -> None:
    """The documentation's own example."""
    headers = {"x-ms-version": "2015-02-21", "X-MS-Date": "Fri, 26 Jun 2015 23:39:12 GMT", "Host": "nobody.signs.it"}
    query = {"timeout": "20", "restype": "container", "comp": "metadata"}
    assert string_to_sign("myaccount", "GET", "/mycontainer", query, headers) == (
        "GET" + "\n" * 12 + "x-ms-date:Fri, 26 Jun 2015 23:39:12 GMT\nx-ms-version:2015-02-21\n"
        "/myaccount/mycontainer\ncomp:metadata\nrestype:container\ntimeout:20"
    )


def test_signatures_are_those_of_microsofts_library(site: Front, url: str, azure: AzuriteServer) -> None:
    """What it sends is signed once more."""
    account = {"account_name": azure.account, "account_key": azure.key}
    container = BlobServiceClient(url, account).get_container_client(CONTAINER)
    name = "of the library/ä +%?#&=~.tar"
    blob = container.get_blob_client(name)
    blob.upload_blob(b"0123456789")
    snapshot = blob.create_snapshot()["snapshot"]
    site.seen.clear()
    assert blob.download_blob(offset=3).readall() == b"3456789"
    assert container.get_blob_client(name, snapshot=snapshot).download_blob().readall() == b"0123456789"
    assert [found.name for found in container.list_blobs(name_starts_with="of the library/ä +")] == [name]
    blob.get_blob_properties(if_match=blob.get_blob_properties().etag)
    assert len(site.seen) >= 5
    for seen in site.seen:
        path, _, query = seen.path.partition("?")
        text = string_to_sign(azure.account, seen.method, path, dict(parse_qsl(query)), seen.headers)
        signature = base64.b64encode(hmac.digest(base64.b64decode(azure.key), text.encode(), hashlib.sha256)).decode()
        assert seen.headers["Authorization"] == f"SharedKey {azure.account}:{signature}"


def test_a_key_is_not_shown() -> None:
    assert "c2VjcmV0" not in repr(SharedKey("used", "account", "c2VjcmV0"))


def test_a_snapshot(
    site: Front, url: str, environment: dict[str, str], client: BlobServiceClient, fetcher: Fetcher
) -> None:
    blob = client.get_blob_client(CONTAINER, "snap +shot.tar")
    blob.upload_blob(archive_of(FILES))
    snapshot = blob.create_snapshot()["snapshot"]
    blob.upload_blob(archive_of({"new": b""}), overwrite=True)
    path = f"{url}/{CONTAINER}/snap%20%2Bshot.tar"
    assert tree(fetcher(f"{path}?snapshot={quote(snapshot)}", environment, allow_http=True).path) == FILES
    assert tree(fetcher(path, environment, allow_http=True).path) == {"new": b""}
    site.seen.clear()
    fetcher(f"{path}?versionid=2024-01-01T00:00:00.0000000Z", environment, allow_http=True)  # which Azurite has not
    assert {dict(parse_qsl(urlsplit(seen.path).query)).get("versionid") for seen in site.seen} == {
        "2024-01-01T00:00:00.0000000Z"
    }


@pytest.mark.parametrize("path", ["a/../b.tar", "./b.tar", "..", "%2E%2E/b.tar"])
def test_parts_that_no_url_has(path: str) -> None:
    with pytest.raises(UsageError, match=r"has a part \. or \.\."):
        parse(f"https://account.blob.core.windows.net/container/{path}", {})


def test_a_blob_that_is_another_one_now(store: Store, client: BlobServiceClient) -> None:
    client.get_blob_client(CONTAINER, "changing").upload_blob(b"now", overwrite=True)
    for offset in (0, 2):
        with pytest.raises(ContextError, match="changed while it was fetched") as caught:
            store.open_at("changing", "changing", '"0x8DEADBEEF"', offset)
        assert caught.value.transient


def test_a_store_that_looks_at_no_condition(site: Front, url: str, azure: AzuriteServer) -> None:
    site.fault(Answer(200, {"ETag": '"another"'}, b"data"), "GET")
    with pytest.raises(ContextError, match="changed while it was fetched"):
        store_of(AzuriteServer(url)).open_at("blob", "blob", '"wanted"', 0)


def test_how_long_a_store_wants_to_be_left_alone(site: Front, url: str) -> None:
    site.fault(Answer(503, {"Retry-After": "7"}))
    with pytest.raises(Broken, match="503") as caught:
        store_of(AzuriteServer(url)).open_at("blob", "blob", '"etag"', 0)
    assert caught.value.wait == 7.0


def test_no_credential_follows_a_redirect(
    site: Front, url: str, environment: dict[str, str], azure: AzuriteServer, fetcher: Fetcher
) -> None:
    with front(azure.url.split("/")[2]) as other:
        site.fault(Answer(307, {"Location": f"http://{other.host}/elsewhere"}))
        with pytest.raises(ContextError, match="the store answers 307"):
            fetcher(f"{url}/{CONTAINER}/x.tar", environment, allow_http=True)
        assert not other.seen


def test_a_proxy(site: Front, azure: AzuriteServer, fetcher: Fetcher) -> None:
    """It is asked by its own user's name, and a host that is excepted by nobody."""
    environment = {
        "AZURE_STORAGE_BLOB_ENDPOINT": azure.url,
        "AZURE_STORAGE_ACCESS_KEY": azure.key,
        "http_proxy": f"http://us%40er:pass%3Aword@{site.host}",
    }
    site.fault(Answer(403, {}, b""))
    with pytest.raises(ContextError, match="403"):
        fetcher(f"{azure.url}/{CONTAINER}/x.tar", environment, allow_http=True)
    (seen,) = site.seen
    assert seen.path.startswith(azure.url)
    sent = {name.lower(): value for name, value in seen.headers.items()}
    assert sent["proxy-authorization"] == "Basic " + base64.b64encode(b"us@er:pass:word").decode()
    assert "pass" not in fetcher.log
    with pytest.raises(ContextError, match="no such blob"):
        fetcher(f"{azure.url}/{CONTAINER}/x.tar", {**environment, "no_proxy": "127.0.0.1"}, allow_http=True)
    assert len(site.seen) == 1
    with pytest.raises(UsageError, match=r"proxy for socks\.example"):
        fetcher(
            f"{azure.url}/{CONTAINER}/x.tar", {**environment, "http_proxy": "socks5://socks.example"}, allow_http=True
        )


def listing(blobs: str, marker: str = "", before: str = "") -> bytes:
    return (
        f'\ufeff<?xml version="1.0" encoding="utf-8"?>{before}<EnumerationResults ServiceEndpoint="https://x/"><Prefix/>'
        f"<Blobs>{blobs}</Blobs><NextMarker>{marker}</NextMarker></EnumerationResults>"
    ).encode()


def listed(name: str, size: str = "5", more: str = "", encoded: str = "") -> str:
    return (
        f"<Blob><Name{encoded}>{name}</Name><Properties><Last-Modified>Mon, 01 Jan 2024 00:00:01 GMT</Last-Modified>"
        f"<Etag>0x8D</Etag><Content-Length>{size}</Content-Length>{more}</Properties><OrMetadata/></Blob>"
    )


@given(st.integers(1, 400))
def test_a_page_in_pieces(size: int) -> None:
    blobs = listed("a &amp;&lt;b") + listed("%EF%BF%BE", encoded=' Encoded="true"') + listed("%41")
    blobs += listed("directory", "0", "<ResourceType>directory</ResourceType>")
    page = listing(blobs, "2!76!x")
    mtime = 1704067201 * 10**9
    expected = [StoredObject(key, 5, mtime, "0x8D") for key in ("a &<b", "\ufffe", "%41")]
    expected.append(StoredObject("directory/", 0, mtime, "0x8D"))
    assert read_page(page[at : at + size] for at in range(0, len(page), size)) == (expected, "2!76!x")


LAUGHS = "".join(f'<!ENTITY l{n + 1} "{f"&l{n};" * 10}">' for n in range(9))
HOSTILE = {
    "entities": (listing(listed("&l9;"), before=f'<!DOCTYPE e [<!ENTITY l0 "ha">{LAUGHS}]>'), "a document type"),
    "a file": (listing(listed("&f;"), before='<!DOCTYPE e [<!ENTITY f SYSTEM "file:///etc/passwd">]>'), "a document"),
    "another encoding": (
        listing("", before="<!DOCTYPE e>").decode("utf-8-sig").replace("utf-8", "utf-16").encode("utf-16"),
        "a document type",
    ),
    "an entity of nobody": (listing(listed("&l9;")), "undefined entity"),
    "a web page": (b"<html><body></body></html>", "of another kind: html"),
    "JSON": (b'{"blobs": []}', "no XML"),
    "nothing": (b"", "no XML"),
    "half of it": (listing(listed("a"))[:200], "no XML"),
    "no name": (listing(listed("a").replace("Name", "Title")), "without a name"),
    "no size": (listing(listed("a", "many")), "without a name, size"),
    "less than nothing": (listing(listed("a", "-1")), "-1 bytes"),
    "no time": (listing(listed("a").replace("Mon", "soon").replace("Jan", "")), "time"),
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
def test_answers_that_are_no_listing(
    kind: str, site: Front, url: str, environment: dict[str, str], fetcher: Fetcher
) -> None:
    text, reason = HOSTILE[kind]
    with pytest.raises(NotAListing, match=reason):
        read_page([text])
    site.fault(Answer(200, {}, text), "GET", "comp=list")
    with pytest.raises(ContextError, match=f"tree/: the store answers with no list of blobs: .*{reason}"):
        fetcher(f"{url}/{CONTAINER}/tree/", environment, allow_http=True)


def test_a_page_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(azure_listing, "LARGEST_PAGE", 1 << 20)
    with pytest.raises(NotAListing, match="a page of more than 1 MiB"):
        read_page(itertools.chain([b"<EnumerationResults>"], itertools.repeat(b"<Blobs></Blobs>" * 1000)))


def test_pages_without_end(site: Front, url: str, environment: dict[str, str], fetcher: Fetcher) -> None:
    site.fault(Answer(200, {}, listing(listed("tree/a"), "again")), "GET", "comp=list", times=9)
    with pytest.raises(ContextError, match="lists the same page again"):
        fetcher(f"{url}/{CONTAINER}/tree/", environment, allow_http=True)
    assert site.count("GET") == 2


@pytest.mark.parametrize(
    ("stated", "text", "reason"),
    [
        ("AZURE_CLIENT_CERTIFICATE_PATH", None, "AZURE_CLIENT_CERTIFICATE_PATH=.*: No such file or directory"),
        ("AZURE_CLIENT_CERTIFICATE_PATH", "no certificate", "no identity can be made of AZURE_CLIENT_CERTIFICATE_PATH"),
        ("AZURE_FEDERATED_TOKEN_FILE", None, "AZURE_FEDERATED_TOKEN_FILE=.*: No such file or directory"),
    ],
)
def test_identities_that_cannot_be_made(
    stated: str, text: str | None, reason: str, tmp_path: Path, fetcher: Fetcher
) -> None:
    if text is not None:
        (tmp_path / "file").write_text(text)
    environment = {"AZURE_TENANT_ID": "tenant", "AZURE_CLIENT_ID": "client", stated: str(tmp_path / "file")}
    with pytest.raises(ContextError, match=reason):
        fetcher("https://account.blob.core.windows.net/container/x.tar", environment)


def test_without_the_library_for_identities(
    azure: AzuriteServer,
    client: BlobServiceClient,
    tmp_path: Path,
    fetcher: Fetcher,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All else works: keys, signatures, what is public."""
    client.get_blob_client(CONTAINER, "key.tar").upload_blob(archive_of(FILES), overwrite=True)
    monkeypatch.delitem(sys.modules, "context_sources.azure_identity", raising=False)
    monkeypatch.setitem(sys.modules, "azure", None)
    environment = {"AZURE_STORAGE_BLOB_ENDPOINT": azure.url}
    location = f"{azure.url}/{CONTAINER}/key.tar"
    keyed = {**environment, "AZURE_STORAGE_ACCESS_KEY": azure.key}
    assert tree(fetcher(location, keyed, allow_http=True).path) == FILES
    with pytest.raises(ContextError, match=r"requests are anonymous: the library for identities \(azure\) is not inst"):
        fetcher(location, environment, allow_http=True)
    with pytest.raises(UsageError, match="AZURE_CLIENT_SECRET needs a library that is not installed") as caught:
        fetcher(location, {**environment, "AZURE_CLIENT_SECRET": "value"}, allow_http=True)
    assert "limpet[azure]" in caught.value.hint


@pytest.mark.parametrize(
    "changes",
    [{"AZURE_STORAGE_ACCOUNT": "acc\r\nount"}, {"AZURE_STORAGE_ACCOUNT": "漢"}, {"AZURE_STORAGE_ACCESS_KEY": "ключ"}],
)
def test_settings_of_which_no_request_is_made(
    url: str, environment: dict[str, str], changes: dict[str, str], site: Front, fetcher: Fetcher
) -> None:
    with pytest.raises(ContextError, match=r"no request can be made .*AZURE_STORAGE_ACCESS_KEY"):
        fetcher(f"{url}/{CONTAINER}/x.tar", {**environment, **changes}, allow_http=True)
    assert not site.seen


def test_a_sas_with_anything_in_it(url: str, site: Front, fetcher: Fetcher) -> None:
    """It can be wrong, and is no way to say something else to the store."""
    for text in ("sig=a\r\nHost: elsewhere", "sig=ä 漢", "sig=%", "?", "sig=#x"):
        environment = {"AZURE_STORAGE_BLOB_ENDPOINT": url, "AZURE_STORAGE_SAS_TOKEN": text}
        with pytest.raises(ContextError, match=r"x\.tar: (40\d|500|no such blob)"):
            fetcher(f"{url}/{CONTAINER}/x.tar", environment, allow_http=True)
    assert all(seen.headers["Host"] == site.host for seen in site.seen)


def test_a_host_that_is_no_name(fetcher: Fetcher) -> None:
    environment = {"AZURE_STORAGE_ACCESS_KEY": "a2V5", "AZURE_STORAGE_BLOB_ENDPOINT": f"https://{'a' * 64}.test"}
    with pytest.raises(ContextError, match="no request can be made of address and credential"):
        fetcher(f"https://{'a' * 64}.test/container/x.tar", environment)
