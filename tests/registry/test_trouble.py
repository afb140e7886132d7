"""Broken connections, busy registries, wrong bytes: a front before a real registry makes them."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from typing import Any

import pytest

from builder.errors import BuildError, ImageError, RegistryError
from builder.oci.blobs import MemoryBlob
from builder.oci.descriptor import Descriptor, sha256
from builder.oci.image import Image
from builder.oci.reference import Reference
from builder.registry.download import open_blob
from builder.registry.exchange import retry_after
from builder.registry.failures import is_immutable_tag_error
from builder.registry.pull import resolve
from builder.registry.push import Uploader
from builder.registry.repository import Repository
from builder.registry.upload import BlobUpload
from tests.images import AMD64, image, layer, noise
from tests.registry.conftest import Connect
from tests.servers.front import Answer, Corrupt, CutRequest, CutResponse, DropAnswer, Front, Without
from tests.servers.registry import RegistryServer

SIZE = 3_000_000
TOO_MANY = Answer(429, {"Retry-After": "0"}, b'{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}')
BUSY = Answer(503, {"Retry-After": "0"})


@pytest.fixture
def shop(plain: RegistryServer, troubled: Callable[..., Front]) -> Front:
    """A front before the plain registry."""
    return troubled(plain.host)


@pytest.fixture
def made() -> Image:
    return image(layer({"a": noise(SIZE)}), layer({"b": b"2"}))


@pytest.fixture
def pushed(plain: RegistryServer, connect: Connect, name: str, made: Image) -> Image:
    """`made`, in the plain registry under the test's name."""
    registries = connect()
    with Uploader(registries, registries.repository(Reference.parse(f"{plain.host}/{name}"), "push")) as uploader:
        uploader.finish(made, ["1"])
    return made


def pull(connect: Connect, front: Front, name: str, **settings: Any) -> bytes:
    """The first layer of the image, through the front."""
    found = resolve(Reference.parse(f"{front.host}/{name}:1"), AMD64, connect(**settings))
    with found.image.layers[0].blob.open() as stream:
        return stream.read()


def push(connect: Connect, front: Front, name: str, made: Image, **settings: Any) -> None:
    registries = connect(**settings)
    with Uploader(registries, registries.repository(Reference.parse(f"{front.host}/{name}"), "push")) as uploader:
        uploader.finish(made, ["1"])


def complete(connect: Connect, plain: RegistryServer, name: str, made: Image) -> bool:
    """Whether the registry has the image, whole."""
    found = resolve(Reference.parse(f"{plain.host}/{name}:1"), AMD64, connect())
    for item in found.image.layers:
        with item.blob.open() as stream:
            stream.read()
    return found.image == made


def blob(made: Image) -> str:
    return made.layers[0].descriptor.digest


# Downloads


@pytest.mark.parametrize("orderly", [True, False])
def test_a_broken_download_goes_on_where_it_broke(
    shop: Front, connect: Connect, name: str, pushed: Image, orderly: bool
) -> None:
    for after in (1_000_000, 700_000, 0):
        shop.fault(CutResponse(after, orderly), "GET", blob(pushed))
    data = pull(connect, shop, name)
    assert sha256(data) == blob(pushed)
    ranges = [seen.headers.get("Range") for seen in shop.seen if blob(pushed) in seen.path]
    assert ranges[0] is None
    starts = [int(str(value)[len("bytes=") : -1]) for value in ranges[1:]]
    if orderly:
        assert starts == [1_000_000, 1_700_000, 1_700_000]
    else:
        assert len(starts) == 3
        assert starts == sorted(starts)
        assert starts[0] > 0


def test_a_broken_download_from_a_registry_without_ranges(
    shop: Front, connect: Connect, name: str, pushed: Image
) -> None:
    shop.fault(CutResponse(2_000_000), "GET", blob(pushed))
    shop.fault(Without("Range"), "GET", blob(pushed))
    assert sha256(pull(connect, shop, name)) == blob(pushed)


def test_a_download_that_stays_broken(shop: Front, connect: Connect, name: str, pushed: Image) -> None:
    shop.fault(CutResponse(1000, orderly=True), "GET", blob(pushed))
    shop.fault(CutResponse(0), "GET", blob(pushed), times=99)
    with pytest.raises(RegistryError) as caught:
        pull(connect, shop, name, retries=2)
    assert f"downloading {blob(pushed)} at byte 1000 of {pushed.layers[0].descriptor.size}" in caught.value.message
    assert caught.value.transient
    assert shop.count("GET", blob(pushed)) == 1 + 2


def test_every_break_with_progress_is_forgiven(shop: Front, connect: Connect, name: str, pushed: Image) -> None:
    shop.fault(CutResponse(200_000), "GET", blob(pushed), times=10)
    assert sha256(pull(connect, shop, name, retries=1)) == blob(pushed)


@pytest.mark.parametrize("what", ["layer", "manifest", "config"])
def test_wrong_bytes_are_never_used(shop: Front, connect: Connect, name: str, pushed: Image, what: str) -> None:
    digest = {
        "layer": blob(pushed),
        "manifest": pushed.manifest()[0].digest,
        "config": Descriptor.of("", pushed.config_bytes()).digest,
    }[what]
    shop.fault(Corrupt(), "GET", f"/{digest}" if what != "manifest" else "manifests", times=99)
    with pytest.raises(ImageError, match="not what it should be"):
        pull(connect, shop, name)


def test_a_blob_that_is_longer_or_shorter_than_its_descriptor(
    plain: RegistryServer, connect: Connect, name: str, pushed: Image
) -> None:
    repository = connect(retries=1).repository(Reference.parse(f"{plain.host}/{name}"), "pull")
    real = pushed.layers[0].descriptor
    for size, words in ((real.size - 10, "longer than"), (real.size + 10, f"ends after {real.size} of")):
        with pytest.raises(BuildError, match=words), open_blob(repository, Descriptor("", real.digest, size)) as stream:
            stream.read()


# Requests that may be repeated


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504, 522])
def test_transient_answers_are_asked_again(
    shop: Front, connect: Connect, name: str, pushed: Image, status: int
) -> None:
    for path in ("manifests/", "blobs/"):
        shop.fault(Answer(status), "GET", path, times=2)
    assert sha256(pull(connect, shop, name)) == blob(pushed)


@pytest.mark.parametrize("status", [400, 403, 404, 501])
def test_lasting_answers_are_not(shop: Front, connect: Connect, name: str, pushed: Image, status: int) -> None:
    shop.fault(Answer(status), "GET", "manifests/")
    with pytest.raises(RegistryError) as caught:
        pull(connect, shop, name)
    assert (caught.value.status, caught.value.transient) == (status, False)
    assert shop.count("GET", "manifests/") == 1


def test_retry_after_is_obeyed(shop: Front, connect: Connect, name: str, pushed: Image) -> None:
    shop.fault(Answer(429, {"Retry-After": "1"}), "GET", "manifests/")
    start = time.monotonic()
    pull(connect, shop, name)
    assert time.monotonic() - start >= 1


def test_a_registry_that_wants_us_to_wait_for_hours(shop: Front, connect: Connect, name: str, pushed: Image) -> None:
    shop.fault(Answer(429, {"Retry-After": "7200"}, TOO_MANY.body), "GET", "manifests/")
    with pytest.raises(
        RegistryError, match="429 TOOMANYREQUESTS while fetching the manifest of 1: slow down"
    ) as caught:
        pull(connect, shop, name)
    assert caught.value.transient
    assert "credential" in caught.value.hint


def test_a_registry_that_stays_busy(shop: Front, connect: Connect, name: str, pushed: Image) -> None:
    shop.fault(BUSY, "GET", "manifests/", times=99)
    with pytest.raises(RegistryError, match="503") as caught:
        pull(connect, shop, name, retries=2)
    assert caught.value.exit_code == 75
    assert shop.count("GET", "manifests/") == 3


def test_download_retries_repeat_the_whole(shop: Front, connect: Connect, name: str, pushed: Image) -> None:
    shop.fault(Answer(404), "GET", "manifests/")
    assert sha256(pull(connect, shop, name, download_retries=1)) == blob(pushed)


def test_retry_after_forms() -> None:
    assert retry_after("7") == 7
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert (retry_after("Fri, 31 Dec 2100 23:59:59 GMT") or 0) > 1e8
    assert [retry_after(text) for text in ("", "soon", "-1")] == [None, None, None]


# Uploads


def test_a_broken_upload_is_sent_again(
    shop: Front, plain: RegistryServer, connect: Connect, name: str, made: Image
) -> None:
    shop.fault(CutRequest(1_000_000), "PUT", "blobs/uploads")
    push(connect, shop, name, made)
    assert complete(connect, plain, name, made)


def test_an_upload_that_breaks_twice_goes_on_in_chunks(
    shop: Front, plain: RegistryServer, connect: Connect, name: str, made: Image
) -> None:
    shop.fault(CutRequest(1_000_000), "PUT", blob(made)[7:], times=2)
    push(connect, shop, name, made, chunk_size=1_000_000)
    assert shop.count("PATCH") == 4
    assert complete(connect, plain, name, made)


@pytest.mark.parametrize("status", [404, 405, 411, 413, 501])
def test_chunks_where_the_whole_is_refused(
    shop: Front, plain: RegistryServer, connect: Connect, name: str, made: Image, status: int
) -> None:
    shop.fault(Answer(status), "PUT", blob(made)[7:])
    push(connect, shop, name, made, chunk_size=1_000_000)
    assert shop.count("PATCH") == 4
    assert complete(connect, plain, name, made)


def test_large_blobs_go_in_chunks_at_once(
    shop: Front, plain: RegistryServer, connect: Connect, name: str, made: Image
) -> None:
    push(connect, shop, name, made, monolithic_limit=1_000_000, chunk_size=1 << 20)
    ranges = [seen.headers["Content-Range"] for seen in shop.seen if seen.method == "PATCH"]
    assert ranges[:2] == ["0-1048575", "1048576-2097151"]
    assert complete(connect, plain, name, made)


@pytest.mark.parametrize("trouble", [CutRequest(300_000), DropAnswer(), BUSY, Answer(502)])
def test_a_broken_chunk_is_completed(
    shop: Front, plain: RegistryServer, connect: Connect, name: str, made: Image, trouble: Any
) -> None:
    shop.fault(Answer(413), "PUT", blob(made)[7:])
    shop.fault(trouble, "PATCH", times=2)
    push(connect, shop, name, made, chunk_size=1_000_000)
    assert complete(connect, plain, name, made)


def test_an_upload_that_the_registry_forgot_starts_anew(
    shop: Front, plain: RegistryServer, connect: Connect, name: str, made: Image
) -> None:
    unknown = Answer(404, {}, b'{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN"}]}')
    shop.fault(Answer(413), "PUT", blob(made)[7:])
    shop.fault(unknown, "PATCH")
    shop.fault(Answer(400, {}, b'{"errors":[{"code":"BLOB_UPLOAD_INVALID"}]}'), "PUT", "digest=")
    push(connect, shop, name, made, chunk_size=1_000_000)
    assert complete(connect, plain, name, made)


def test_a_commit_whose_answer_got_lost(
    shop: Front, plain: RegistryServer, connect: Connect, name: str, made: Image
) -> None:
    shop.fault(DropAnswer(), "PUT", blob(made)[7:])
    push(connect, shop, name, made)
    assert shop.count("PUT", blob(made)[7:]) == 1  # the second look found the blob
    assert complete(connect, plain, name, made)


def test_a_manifest_whose_answer_got_lost(
    shop: Front, plain: RegistryServer, connect: Connect, name: str, made: Image
) -> None:
    shop.fault(DropAnswer(), "PUT", "manifests/")
    push(connect, shop, name, made)
    assert complete(connect, plain, name, made)


@pytest.mark.parametrize("status", [401, 403, 404, 405])
def test_a_mount_that_is_refused(
    plain: RegistryServer, shop: Front, connect: Connect, name: str, pushed: Image, status: int
) -> None:
    registries = connect()
    found = resolve(Reference.parse(f"{shop.host}/{name}:1"), AMD64, registries)
    shop.fault(Answer(status), "POST", "mount=", times=9)
    copy = f"{name}-copy"
    with Uploader(registries, registries.repository(Reference.parse(f"{shop.host}/{copy}"), "push")) as uploader:
        uploader.copy(found, ["1"])
    assert complete(connect, plain, copy, pushed)


def test_a_mount_that_becomes_an_upload(plain: RegistryServer, connect: Connect, name: str, pushed: Image) -> None:
    """docker-registry answers 202 when it cannot mount."""
    registries = connect()
    repository = registries.repository(Reference.parse(f"{plain.host}/{name}-copy"), "push")
    item = pushed.layers[0]
    assert BlobUpload(repository).ensure(item.descriptor, item.blob, [f"{name}-nowhere"]) == "uploaded"
    assert BlobUpload(repository).ensure(item.descriptor, item.blob) == "present"


def test_push_retries_repeat_the_whole(
    shop: Front, plain: RegistryServer, connect: Connect, name: str, made: Image
) -> None:
    shop.fault(Answer(403), "POST", "blobs/uploads/")
    with pytest.raises(RegistryError, match="403"):
        push(connect, shop, name, made)
    shop.fault(Answer(403), "PUT", "manifests/")
    push(connect, shop, name, made, push_retries=1)
    assert complete(connect, plain, name, made)


def test_a_registry_that_dies_half_way(registry: Callable[..., RegistryServer], connect: Connect, made: Image) -> None:
    server = registry()
    registries = connect(retries=1)
    item = made.layers[0]

    class Killer:
        """Its bytes come until the registry is dead."""

        def open(self) -> Any:
            server.stop()
            return item.blob.open()

    repository = registries.repository(Reference.parse(f"{server.host}/app"), "push")
    broken = type(item)(item.descriptor, item.diff_id, Killer())
    with pytest.raises(RegistryError) as caught, Uploader(registries, repository) as uploader:
        uploader.finish(image(broken), ["1"])
    assert caught.value.transient
    assert f"cannot reach {server.host}" in caught.value.message


def test_a_registry_that_is_not_there(connect: Connect) -> None:
    repository = connect(retries=0).repository(Reference.parse("127.0.0.1:1/app"), "push")
    with pytest.raises(RegistryError, match=r"127\.0\.0\.1:1/app: cannot reach .* Connection refused"):
        repository.check_push()
    repository = connect(retries=0).repository(Reference.parse("no-such-host.invalid/app"), "push")
    with pytest.raises(RegistryError, match=r"cannot reach no-such-host\.invalid"):
        repository.check_push()


def test_cancelling_ends_pauses(shop: Front, connect: Connect, name: str, made: Image) -> None:
    """A failed build does not wait for a registry that wants it to wait."""
    shop.fault(Answer(503, {"Retry-After": "250"}), "POST", times=99)
    registries = connect()
    repository = registries.repository(Reference.parse(f"{shop.host}/{name}"), "push")
    with pytest.raises(KeyboardInterrupt), Uploader(registries, repository) as uploader:
        uploader.start(made.layers[0])
        while not shop.count("POST"):
            time.sleep(0.01)
        raise KeyboardInterrupt


# Other things that registries say


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
        push(connect, shop, name, made)
    assert is_immutable_tag_error(caught.value)
    shop.fault(Answer(400), "PUT", "manifests/")
    with pytest.raises(RegistryError) as caught:
        push(connect, shop, name, made)
    assert not is_immutable_tag_error(caught.value)


def test_tags_by_pages(plain: RegistryServer, shop: Front, connect: Connect, name: str, pushed: Image) -> None:
    link = {"Link": f'</v2/{name}/tags/list?last=0&n=1>; rel="next"', "Content-Type": "application/json"}
    shop.fault(Answer(200, link, b'{"tags":["0"]}'), "GET", "tags/list")
    assert connect().repository(Reference.parse(f"{shop.host}/{name}"), "pull").tags() == ("0", "1")


def test_answers_that_are_no_registry(shop: Front, connect: Connect, name: str) -> None:
    shop.fault(Answer(200, {"Content-Type": "text/html"}, b"<html>"), times=99)
    with pytest.raises(ImageError, match="not JSON"):
        pull(connect, shop, name)
    with pytest.raises(RegistryError, match="not JSON"):
        connect().repository(Reference.parse(f"{shop.host}/{name}"), "pull").tags()
    shop.faults.clear()
    shop.fault(Answer(202), "POST")
    with pytest.raises(RegistryError, match="does not say where"):
        push(connect, shop, name, image())


def test_redirects_that_do_not_end(shop: Front, connect: Connect, name: str) -> None:
    shop.fault(Answer(307, {"Location": "/v2/again"}), "GET", times=99)
    with pytest.raises(RegistryError):
        pull(connect, shop, name, retries=0)


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
