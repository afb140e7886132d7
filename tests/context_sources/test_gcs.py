"""Contexts in Google Cloud Storage: fake-gcs-server, which knows the API and asks nobody for a login."""

from __future__ import annotations

import gzip
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from builder.errors import ContextError
from context_sources.gcs import parse
from context_sources.objects import IN_PARALLEL
from tests.context_sources.conftest import FILES, QUICK, Fetcher, archive_of, tree
from tests.context_sources.places import make_gcs_bucket, put_gcs_object
from tests.servers.front import Answer, CutResponse, Front, Together, Without, WithQuery, front

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
    refusal = Answer(400, {"Content-Type": "application/json"}, b'{"error": "invalid_grant"}')
    site.fault(refusal, "POST", "/token", times=9)
    with pytest.raises(ContextError, match="Google gives no token"):
        fetcher("gs://bucket/big.tar", environment)


def test_a_key_file_that_is_none(environment: dict[str, str], tmp_path: Path, fetcher: Fetcher) -> None:
    for text in (None, "not json secret-secret", "{}"):
        path = tmp_path / "key.json"
        if text is not None:
            path.write_text(text)
        with pytest.raises(ContextError, match=r"Google credentials .*key.json") as caught:
            fetcher("gs://bucket/big.tar", {**environment, "GOOGLE_APPLICATION_CREDENTIALS": str(path)})
        assert "secret-secret" not in str(caught.value)
