"""Contexts in Google Cloud Storage: fake-gcs-server, which knows the API and asks nobody for a login."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builder.errors import ContextError, UsageError
from context_sources.gcs import parse
from context_sources.gcs_listing import NotTheApi, read_generation, read_page
from context_sources.objects import IN_PARALLEL, StoredObject
from tests.context_sources.conftest import FILES, QUICK, Fetcher, archive_of, tree
from tests.context_sources.places import make_gcs_bucket, put_gcs_object
from tests.servers.certificates import Authority
from tests.servers.clouds import every_https_host, json_server
from tests.servers.front import Answer, CutResponse, DropAnswer, Front, Together, Without, WithQuery, front

BIG_FILES = {**FILES, "big": os.urandom(3 << 20)}
BIG = archive_of(BIG_FILES)


@pytest.fixture(scope="module")
def generation(gcs: str) -> str:
    """The bucket `bucket`, filled; the generation of big.tar."""
    make_gcs_bucket(gcs, "bucket")
    objects = {
        "context.tar.gz": gzip.compress(archive_of(FILES)),
        "dir/a b.tar": archive_of(FILES),
        **{f"tree/{name}": data for name, data in FILES.items()},
        "tree/.dockerignore": b"*.c\n",
        "big.tar": BIG,
    }
    found = ""
    for name, data in objects.items():
        found = put_gcs_object(gcs, "bucket", name, data)
    return found


@pytest.fixture
def site(gcs: str, generation: str) -> Iterator[Front]:
    with front(gcs) as running:
        yield running


@pytest.fixture
def environment(site: Front) -> dict[str, str]:
    return {"STORAGE_EMULATOR_HOST": f"http://{site.host}"}


def test_an_archive(environment: dict[str, str], generation: str, fetcher: Fetcher) -> None:
    fetched = fetcher("gs://bucket/big.tar", environment)
    assert tree(fetched.path) == BIG_FILES
    assert (fetched.source, fetched.revision_kind, fetched.revision) == (
        "gs://bucket/big.tar", "generation", generation,
    )  # fmt: skip
    assert tree(fetcher(f"gs://bucket/big.tar#{generation}", environment).path) == BIG_FILES


@pytest.mark.parametrize("location", ["gs://bucket", "gs://bucket/", "gs://bucket/dir/a b.tar"])
def test_other_addresses(environment: dict[str, str], fetcher: Fetcher, location: str) -> None:
    assert tree(fetcher(location, environment).path) == FILES


def test_listings_of_many_pages(environment: dict[str, str], gcs: str, site: Front, fetcher: Fetcher) -> None:
    """A page of Google's has at most 1,000 names, here 7."""
    expected = {f"{number % 7}/{number}": b"%d" % number for number in range(40)}
    for name, data in expected.items():
        put_gcs_object(gcs, "bucket", f"many/{name}", data)
    site.fault(WithQuery("maxResults=7"), "GET", "/b/bucket/o?", times=99)
    assert tree(fetcher("gs://bucket/many/", environment).path) == expected
    assert site.count("GET", "pageToken=") >= 5


def test_objects_come_at_once_by_connections_that_stay(
    environment: dict[str, str], gcs: str, site: Front, fetcher: Fetcher
) -> None:
    expected = {str(number): b"%d" % number for number in range(3 * IN_PARALLEL)}
    for name, data in expected.items():
        put_gcs_object(gcs, "bucket", f"parallel/{name}", data)
    site.fault(Together(threading.Barrier(IN_PARALLEL)), "GET", "/download/", times=len(expected))
    assert tree(fetcher("gs://bucket/parallel/", environment).path) == expected
    assert site.connections <= IN_PARALLEL + 1  # one has listed


def test_addresses() -> None:
    assert parse("gs://b/a#b") == ("b", "a#b", "")
    assert parse("gs://b/a#123") == ("b", "a", "123")
    assert parse("gs://b/a?b/") == ("b", "a?b/", "")


def test_a_prefix_is_a_tree(environment: dict[str, str], site: Front, fetcher: Fetcher) -> None:
    assert tree(fetcher("gs://bucket/tree/", environment).path) == {**FILES, ".dockerignore": b"*.c\n"}
    site.seen.clear()
    fetched = fetcher("gs://bucket/tree/", environment, make_filter=lambda text: lambda path: not path.endswith(".c"))
    assert "src/main.c" not in tree(fetched.path)
    assert site.count("GET", "main.c") == 0


@pytest.mark.parametrize("with_range", [True, False])
def test_a_cut_connection_goes_on(environment: dict[str, str], site: Front, fetcher: Fetcher, with_range: bool) -> None:
    site.fault(CutResponse(2_000_000), "GET", "/download/")
    if not with_range:
        site.fault(Without("Range"), "GET", "/download/")
    assert tree(fetcher("gs://bucket/big.tar", environment).path) == BIG_FILES
    assert site.count("GET", "/download/") == 2


def test_attempts_end(environment: dict[str, str], site: Front, fetcher: Fetcher) -> None:
    site.fault(Answer(503), times=99)
    with pytest.raises(ContextError, match=f"503.*{QUICK.attempts} times") as caught:
        fetcher("gs://bucket/big.tar", environment)
    assert caught.value.transient


def test_what_is_not_there(environment: dict[str, str], fetcher: Fetcher) -> None:
    for location in ("gs://bucket/absent.tar", "gs://absent/context.tar.gz"):
        with pytest.raises(ContextError, match=f"{location}: no such object"):
            fetcher(location, environment)
    with pytest.raises(ContextError, match="no object begins with this prefix"):
        fetcher("gs://bucket/absent/", environment)


def key_file(path: Path, token_uri: str) -> str:
    """A service account of nobody's, whose tokens come from `token_uri`."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    account = {"type": "service_account", "client_email": "build@example.com", "private_key_id": "1"}
    path.write_text(json.dumps({**account, "private_key": key.decode(), "token_uri": token_uri, "project_id": "p"}))
    return str(path)


def test_a_service_account(environment: dict[str, str], site: Front, tmp_path: Path, fetcher: Fetcher) -> None:
    environment["GOOGLE_APPLICATION_CREDENTIALS"] = key_file(tmp_path / "key.json", f"http://{site.host}/token")
    token = {"access_token": "access-token-0123", "expires_in": 3600, "token_type": "Bearer"}
    answer = Answer(200, {"Content-Type": "application/json"}, json.dumps(token).encode())
    site.fault(answer, "POST", "/token", times=9)
    assert tree(fetcher("gs://bucket/big.tar", environment).path) == BIG_FILES
    sent = [{name.lower(): value for name, value in request.headers.items()} for request in site.seen]
    asked = [headers.get("authorization") for headers, seen in zip(sent, site.seen) if seen.method == "GET"]
    assert asked == ["Bearer access-token-0123"] * len(asked)
    assert len(asked) >= 2
    assert "access-token-0123" not in fetcher.log
    site.fault(Answer(403), "GET", "/o/big.tar")
    with pytest.raises(
        ContextError, match=r"403 .*the credential was .*key.json \(GOOGLE_APPLICATION_CREDENTIALS\)"
    ) as caught:
        fetcher("gs://bucket/big.tar", environment)
    assert "storage.objects.get" in caught.value.hint


def test_a_token_that_is_refused(environment: dict[str, str], site: Front, tmp_path: Path, fetcher: Fetcher) -> None:
    environment["GOOGLE_APPLICATION_CREDENTIALS"] = key_file(tmp_path / "key.json", f"http://{site.host}/token")
    refusal = Answer(
        400,
        {"Content-Type": "application/json"},
        b'{"error": "invalid_grant", "error_description": "Invalid JWT Signature."}',
    )
    site.fault(refusal, "POST", "/token", times=9)
    with pytest.raises(
        ContextError, match=r"Google gives no token: invalid_grant: Invalid JWT Signature\.; the credential was"
    ):
        fetcher("gs://bucket/big.tar", environment)


def test_a_key_file_that_is_none(environment: dict[str, str], tmp_path: Path, fetcher: Fetcher) -> None:
    for text in (None, "not json secret-secret", "{}"):
        path = tmp_path / "key.json"
        if text is not None:
            path.write_text(text)
        with pytest.raises(ContextError, match=r"Google credentials .*key.json") as caught:
            fetcher("gs://bucket/big.tar", {**environment, "GOOGLE_APPLICATION_CREDENTIALS": str(path)})
        assert "secret-secret" not in str(caught.value)


def give_tokens(site: Front, count: int) -> None:
    """The token's server gives token-0, token-1 and so on."""
    for number in range(count):
        token = {"access_token": f"token-{number}", "expires_in": 3600, "token_type": "Bearer"}
        site.fault(Answer(200, {"Content-Type": "application/json"}, json.dumps(token).encode()), "POST", "/token")


def test_a_token_that_ends_before_its_time(
    environment: dict[str, str], site: Front, tmp_path: Path, fetcher: Fetcher
) -> None:
    environment["GOOGLE_APPLICATION_CREDENTIALS"] = key_file(tmp_path / "key.json", f"http://{site.host}/token")
    give_tokens(site, 3)
    site.fault(Answer(401), "GET", "/download/")
    assert tree(fetcher("gs://bucket/big.tar", environment).path) == BIG_FILES
    sent = [seen.headers["authorization"] for seen in site.seen if seen.method == "GET"]
    assert sent == ["Bearer token-0", "Bearer token-0", "Bearer token-1"]


def test_a_token_that_the_store_refuses(
    environment: dict[str, str], site: Front, tmp_path: Path, fetcher: Fetcher
) -> None:
    """It is renewed once, not forever."""
    environment["GOOGLE_APPLICATION_CREDENTIALS"] = key_file(tmp_path / "key.json", f"http://{site.host}/token")
    give_tokens(site, 9)
    site.fault(Answer(401), "GET", times=99)
    with pytest.raises(ContextError, match=r"big.tar: 401 .*key.json"):
        fetcher("gs://bucket/big.tar", environment)
    assert (site.count("POST", "/token"), site.count("GET")) == (2, 2)


def test_a_tokens_server_that_breaks_off(
    environment: dict[str, str], site: Front, tmp_path: Path, fetcher: Fetcher
) -> None:
    environment["GOOGLE_APPLICATION_CREDENTIALS"] = key_file(tmp_path / "key.json", f"http://{site.host}/token")
    token = {"access_token": "access-token-0123", "expires_in": 3600, "token_type": "Bearer"}
    site.fault(DropAnswer(), "POST", "/token")
    site.fault(Answer(200, {"Content-Type": "application/json"}, json.dumps(token).encode()), "POST", "/token")
    assert tree(fetcher("gs://bucket/big.tar", environment).path) == BIG_FILES
    assert "the token's server did not answer" in fetcher.log


@pytest.mark.parametrize("kind", ["file", "url"])
def test_workload_identity_federation(
    environment: dict[str, str], tmp_path: Path, authority: Authority, site: Front, fetcher: Fetcher, kind: str
) -> None:
    """A token of another issuer, from a file or a server, is exchanged for Google's, by TLS with an own authority."""
    asked: list[dict[str, str]] = []

    def answer(host: str, path: str, form: dict[str, str]) -> tuple[int, dict[str, Any]]:
        if path == "/issuer":
            return 200, {"value": "subject-token-0123"}
        asked.append(form)
        return 200, {
            "access_token": "federated-token-0123",
            "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
            "token_type": "Bearer",
            "expires_in": 3600,
        }

    subject, key = tmp_path / "subject", tmp_path / "key.json"
    subject.write_text("subject-token-0123")
    with json_server(answer, tls=authority.server()) as url:
        sources = {
            "file": {"file": str(subject)},
            "url": {"url": f"{url}/issuer", "format": {"type": "json", "subject_token_field_name": "value"}},
        }
        account = {
            "type": "external_account",
            "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/pool/providers/p",
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "token_url": f"{url}/token",
            "credential_source": sources[kind],
        }
        key.write_text(json.dumps(account))
        environment["GOOGLE_APPLICATION_CREDENTIALS"] = str(key)
        with pytest.raises(ContextError, match="the certificate of the token's server is not trusted") as caught:
            fetcher("gs://bucket/big.tar", environment)
        assert "SSL_CERT_FILE" in caught.value.hint
        environment["SSL_CERT_FILE"] = str(authority.certificate)
        assert tree(fetcher("gs://bucket/big.tar", environment).path) == BIG_FILES
        subject.unlink()
        if kind == "file":
            with pytest.raises(
                ContextError, match=r"Google gives no token: File '.*/subject' was not found; .*key.json"
            ):
                fetcher("gs://bucket/big.tar", environment)
    assert [form["subject_token"] for form in asked] == ["subject-token-0123"]
    assert {seen.headers["authorization"] for seen in site.seen} == {"Bearer federated-token-0123"}
    assert "token-0123" not in fetcher.log


def test_the_pods_service_account(site: Front, tmp_path: Path) -> None:
    """The metadata server is asked by the name that the environment gives it, and by no proxy."""
    token = {"access_token": "pod-token-0123", "expires_in": 3600, "token_type": "Bearer"}
    account = {"email": "pod@example.com", "scopes": [], "aliases": ["default"]}
    headers = {"Content-Type": "application/json", "Metadata-Flavor": "Google"}
    site.fault(Answer(200, headers, json.dumps(token).encode()), "GET", "/token", times=9)
    site.fault(Answer(200, headers, json.dumps(account).encode()), "GET", times=9)
    program = (
        "import os; from context_sources.gcs_credentials import credential_for; found = credential_for(os.environ)\n"
        "print(found.used, found.headers())"
    )
    machine = {"GCE_METADATA_HOST": site.host, "GCE_METADATA_IP": site.host, "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**machine, "http_proxy": "http://127.0.0.1:1"},
        capture_output=True,
        text=True,
    )
    assert "(metadata server) {'authorization': 'Bearer pod-token-0123'}" in done.stdout, done.stderr
    assert done.stderr == ""


def test_a_store_with_an_authority_of_ones_own(
    gcs: str, generation: str, authority: Authority, fetcher: Fetcher
) -> None:
    with front(gcs, tls=authority.server()) as site:
        environment = {"STORAGE_EMULATOR_HOST": f"https://{site.host}"}
        with pytest.raises(ContextError, match="certificate is not trusted") as caught:
            fetcher("gs://bucket/big.tar", environment)
        assert "SSL_CERT_FILE" in caught.value.hint
        environment["SSL_CERT_FILE"] = str(authority.certificate)
        assert tree(fetcher("gs://bucket/big.tar", environment).path) == BIG_FILES


@pytest.mark.parametrize(
    "body",
    [
        b"<html>",
        b"[]",
        b'{"items": [{"name": "\\ud800", "generation": 1}]}',
        b'{"items": [{"name": "tree/x"}]}',
        b'{"items": 1}',
        b"[" * 9999,
    ],
)
def test_answers_of_something_else(environment: dict[str, str], site: Front, fetcher: Fetcher, body: bytes) -> None:
    site.fault(Answer(200, {}, body), "GET", times=9)
    for location in ("gs://bucket/big.tar", "gs://bucket/tree/"):
        with pytest.raises(ContextError, match=f"{location}: the store does not answer as Cloud Storage does"):
            fetcher(location, environment)


def test_a_listing_without_end(environment: dict[str, str], site: Front, fetcher: Fetcher) -> None:
    site.fault(Answer(200, {}, b'{"nextPageToken": "again"}'), "GET", times=99)
    with pytest.raises(ContextError, match="the same page again and again"):
        fetcher("gs://bucket/tree/", environment)
    assert len(site.seen) == 2


def test_what_a_listing_says() -> None:
    item = {"name": "d/ü", "size": "7", "updated": "2026-11-24T22:01:01.123Z", "generation": "17"}
    least = {"name": "d/", "generation": 1}
    page = json.dumps({"items": [item, least], "nextPageToken": "next"}).encode()
    assert read_page([page[:20], page[20:]]) == (
        [StoredObject("d/ü", 7, 1795557661 * 10**9, "17"), StoredObject("d/", 0, 0, "1")], "next",
    )  # fmt: skip
    assert read_page([b'{"kind": "storage#objects"}']) == ([], "")


@pytest.mark.parametrize("impersonated", [False, True])
def test_gclouds_own_file(
    environment: dict[str, str],
    tmp_path: Path,
    authority: Authority,
    site: Front,
    fetcher: Fetcher,
    impersonated: bool,
) -> None:
    """A user's credential, and a service account by it, from Google's own servers of tokens through a proxy."""
    asked: list[tuple[str, str]] = []

    def answer(host: str, path: str, form: dict[str, str]) -> tuple[int, dict[str, Any]]:
        asked.append((host, form.get("refresh_token", "")))
        if host.startswith("iamcredentials"):
            return 200, {"accessToken": "account-token-0123", "expireTime": "2099-01-01T00:00:00Z"}
        return 200, {"access_token": "user-token-0123", "expires_in": 3600, "token_type": "Bearer"}

    user = {"type": "authorized_user", "client_id": "c", "client_secret": "s", "refresh_token": "refresh-0123"}
    account = {
        "type": "impersonated_service_account",
        "service_account_impersonation_url": "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/"
        "build@p.iam.gserviceaccount.com:generateAccessToken",
        "source_credentials": user,
    }
    file = tmp_path / "application_default_credentials.json"
    file.write_text(json.dumps(account if impersonated else user))
    pair = authority.server("oauth2.googleapis.com", "iamcredentials.googleapis.com")
    with every_https_host(pair, answer) as proxy:
        environment.update(
            CLOUDSDK_CONFIG=str(tmp_path), SSL_CERT_FILE=str(authority.certificate), https_proxy=proxy, HOME="/nowhere"
        )
        assert tree(fetcher("gs://bucket/big.tar", environment).path) == BIG_FILES
    expected = [("oauth2.googleapis.com", "refresh-0123")]
    assert asked == expected + [("iamcredentials.googleapis.com", "")] * impersonated
    token = "account-token-0123" if impersonated else "user-token-0123"
    assert {seen.headers["authorization"] for seen in site.seen} == {f"Bearer {token}"}
    assert f"the credential was {file}" in fetcher.log
    assert "-0123" not in fetcher.log


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.sampled_from("1a/\u00fc\ud800"), max_size=9),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["name", "size", "updated", "generation"]), inner),
    max_leaves=9,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(["items", "nextPageToken", "generation"]), JSON))
def test_an_answer_is_read_or_refused(answer: dict[str, Any]) -> None:
    text = json.dumps(answer).encode()
    with contextlib.suppress(NotTheApi):
        objects, token = read_page([text])
        assert [stored.key.encode().decode() for stored in objects] == [
            item["name"] for item in answer.get("items") or ()
        ]
        assert isinstance(token, str)
    with contextlib.suppress(NotTheApi):
        assert read_generation([text]) == str(answer["generation"])


def test_settings_that_are_none(fetcher: Fetcher) -> None:
    for host in ("http://host:port", "http://[host"):
        with pytest.raises(UsageError, match="STORAGE_EMULATOR_HOST"):
            fetcher("gs://bucket/big.tar", {"STORAGE_EMULATOR_HOST": host})
    with pytest.raises(UsageError, match="not UTF-8"):
        fetcher("gs://bucket/\udcff", {"STORAGE_EMULATOR_HOST": "127.0.0.1:1"})
