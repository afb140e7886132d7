"""Answers that registries give: which are asked for again, and what the others mean."""

from __future__ import annotations

import io
import time
from dataclasses import replace

import pytest

from builder.errors import ImageError, RegistryError
from builder.oci.blobs import MemoryBlob
from builder.oci.descriptor import Descriptor, sha256
from builder.oci.image import Image
from builder.oci.reference import Reference
from builder.registry.download import open_blob
from builder.registry.exchange import retry_after
from builder.registry.failures import is_immutable_tag_error
from builder.registry.repository import Repository
from builder.registry.upload import BlobUpload
from tests.images import image, noise
from tests.registry.client import first_blob, pull, push
from tests.registry.conftest import Connect
from tests.servers.front import Answer, Front
from tests.servers.registry import RegistryServer

TOO_MANY = Answer(429, {"Retry-After": "0"}, b'{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}')
BUSY = Answer(503, {"Retry-After": "0"})


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504, 522])
def test_transient_answers_are_asked_again(
    shop: Front, connect: Connect, name: str, pushed: Image, status: int
) -> None:
    for path in ("manifests/", "blobs/"):
        shop.fault(Answer(status), "GET", path, times=2)
    assert sha256(pull(connect, f"{shop.host}/{name}:1")) == first_blob(pushed)


@pytest.mark.parametrize("status", [400, 403, 404, 501])
def test_lasting_answers_are_not(shop: Front, connect: Connect, name: str, pushed: Image, status: int) -> None:
    shop.fault(Answer(status), "GET", "manifests/")
    with pytest.raises(RegistryError) as caught:
        pull(connect, f"{shop.host}/{name}:1")
    assert (caught.value.status, caught.value.transient) == (status, False)
    assert shop.count("GET", "manifests/") == 1


def test_retry_after_is_obeyed(shop: Front, connect: Connect, name: str, pushed: Image) -> None:
    shop.fault(Answer(429, {"Retry-After": "1"}), "GET", "manifests/")
    start = time.monotonic()
    pull(connect, f"{shop.host}/{name}:1")
    assert time.monotonic() - start >= 1


def test_a_registry_that_wants_us_to_wait_for_hours(shop: Front, connect: Connect, name: str, pushed: Image) -> None:
    shop.fault(Answer(429, {"Retry-After": "7200"}, TOO_MANY.body), "GET", "manifests/")
    with pytest.raises(
        RegistryError, match="429 TOOMANYREQUESTS while fetching the manifest of 1: slow down"
    ) as caught:
        pull(connect, f"{shop.host}/{name}:1")
    assert caught.value.transient
    assert "credential" in caught.value.hint


def test_a_registry_that_stays_busy(shop: Front, connect: Connect, name: str, pushed: Image) -> None:
    shop.fault(BUSY, "GET", "manifests/", times=99)
    with pytest.raises(RegistryError, match="503") as caught:
        pull(connect, f"{shop.host}/{name}:1", retries=2)
    assert caught.value.exit_code == 75
    assert shop.count("GET", "manifests/") == 3


def test_download_retries_repeat_the_whole(shop: Front, connect: Connect, name: str, pushed: Image) -> None:
    shop.fault(Answer(404), "GET", "manifests/")
    assert sha256(pull(connect, f"{shop.host}/{name}:1", download_retries=1)) == first_blob(pushed)


def test_retry_after_forms() -> None:
    assert retry_after("7") == 7
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert (retry_after("Fri, 31 Dec 2100 23:59:59 GMT") or 0) > 1e8
    assert [retry_after(text) for text in ("", "soon", "-1")] == [None, None, None]


@pytest.mark.parametrize(
    "text",
    [
        "The repository has enabled tag immutability",
        "The image tag '1' already exists and cannot be overwritten because the tag is immutable.",
        "Failed to process request due to 'app:1' configured as immutable.",
    ],
)
def test_immutable_tags_are_recognised(shop: Front, connect: Connect, name: str, made: Image, text: str) -> None:
    body = b'{"errors":[{"code":"DENIED","message":"%s"}]}' % text.encode()
    shop.fault(Answer(400, {"Content-Type": "application/json"}, body), "PUT", "manifests/")
    with pytest.raises(RegistryError) as caught:
        push(connect, f"{shop.host}/{name}:1", made)
    assert is_immutable_tag_error(caught.value)
    shop.fault(Answer(400), "PUT", "manifests/")
    with pytest.raises(RegistryError) as caught:
        push(connect, f"{shop.host}/{name}:1", made)
    assert not is_immutable_tag_error(caught.value)


@pytest.mark.parametrize("code", ["MANIFEST_BLOB_UNKNOWN", "DIGEST_INVALID"])
def test_a_blob_that_the_registry_has_lost_for_a_moment(
    shop: Front, connect: Connect, name: str, made: Image, code: str
) -> None:
    """Distribution says so while somebody else uploads the same blob: all blobs are looked for, and sent, again."""
    errors = f'{{"errors":[{{"code":"{code}","message":"blob unknown to registry"}}]}}'
    shop.fault(Answer(400, {}, errors.encode()), "PUT", "manifests/")
    push(connect, f"{shop.host}/{name}:1", made)
    assert sha256(pull(connect, f"{shop.host}/{name}:1")) == first_blob(made)
    assert shop.count("HEAD", first_blob(made)) == 2


def test_tags_by_pages(plain: RegistryServer, shop: Front, connect: Connect, name: str, pushed: Image) -> None:
    link = {"Link": f'</v2/{name}/tags/list?n=100>; rel="next"', "Content-Type": "application/json"}
    shop.fault(Answer(200, link, b'{"tags":["0"]}'), "GET", "tags/list")
    assert connect().repository(Reference.parse(f"{shop.host}/{name}"), "pull").tags() == ("0", "1")


def test_answers_that_are_no_registry(shop: Front, connect: Connect, name: str) -> None:
    shop.fault(Answer(200, {"Content-Type": "text/html"}, b"<html>"), times=99)
    with pytest.raises(ImageError, match="not JSON"):
        pull(connect, f"{shop.host}/{name}:1")
    with pytest.raises(RegistryError, match="not JSON"):
        connect().repository(Reference.parse(f"{shop.host}/{name}"), "pull").tags()
    shop.faults.clear()
    shop.fault(Answer(202), "POST")
    with pytest.raises(RegistryError, match="does not say where"):
        push(connect, f"{shop.host}/{name}:1", image())


def test_redirects_that_do_not_end(shop: Front, connect: Connect, name: str) -> None:
    shop.fault(Answer(307, {"Location": "/v2/again"}), "GET", times=99)
    with pytest.raises(RegistryError):
        pull(connect, f"{shop.host}/{name}:1", retries=0)


def test_an_upload_of_unknown_size(plain: RegistryServer, connect: Connect, name: str) -> None:
    repository: Repository = connect(chunk_size=1000).repository(Reference.parse(f"{plain.host}/{name}"), "push")
    data = noise(2500)
    digest, size = BlobUpload(repository).stream(io.BytesIO(data))
    assert (digest, size) == (sha256(data), 2500)
    with open_blob(repository, Descriptor("", digest, size)) as stream:
        assert stream.read() == data


def test_an_empty_blob(plain: RegistryServer, connect: Connect, name: str) -> None:
    repository = connect().repository(Reference.parse(f"{plain.host}/{name}"), "push")
    empty = Descriptor.of("", b"")
    assert BlobUpload(repository).ensure(empty, MemoryBlob(b"")) == "uploaded"
    with open_blob(repository, empty) as stream:
        assert stream.read() == b""


def test_a_connection_serves_many_requests(shop: Front, connect: Connect, name: str) -> None:
    """Also after answers that have no body, or one that nobody reads."""
    repository = connect().repository(Reference.parse(f"{shop.host}/{name}"), "push", "http")
    shop.fault(Answer(503, body=b"later"), "POST")
    for _ in range(3):
        assert not repository.has_blob("sha256:" + "0" * 64)
        repository.check_push()
    assert shop.count("POST") == 4 and shop.count("DELETE") == 3
    assert shop.connections == 1


def test_who_is_asked_whether_it_speaks_tls_is_asked_once(shop: Front, connect: Connect, name: str) -> None:
    reference, registries = Reference.parse(f"{shop.host}/{name}"), connect()
    others = registries.with_settings(replace(registries.settings, retries=1))
    for repository in (registries.repository(reference, "push"), others.repository(reference, "push")):
        assert not repository.has_blob("sha256:" + "0" * 64)
    assert shop.connections == 3  # one that found no TLS, and one of each
