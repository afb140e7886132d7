"""Uploads that break, are refused, or lose their answer."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from builder.errors import RegistryError
from builder.oci.image import Image
from builder.oci.reference import Reference
from builder.registry.pull import resolve
from builder.registry.push import Uploader
from builder.registry.upload import BlobUpload
from tests.images import AMD64, image
from tests.registry.client import first_blob, is_complete, push
from tests.registry.conftest import Connect
from tests.servers.front import Answer, CutRequest, DropAnswer, Front
from tests.servers.registry import RegistryServer

BUSY = Answer(503, {"Retry-After": "0"})


def test_a_broken_upload_is_sent_again(
    shop: Front, plain: RegistryServer, connect: Connect, name: str, made: Image
) -> None:
    shop.fault(CutRequest(1_000_000), "PUT", "blobs/uploads")
    push(connect, f"{shop.host}/{name}:1", made)
    assert is_complete(connect, f"{plain.host}/{name}:1", made)


def test_an_upload_that_breaks_twice_goes_on_in_chunks(
    shop: Front, plain: RegistryServer, connect: Connect, name: str, made: Image
) -> None:
    shop.fault(CutRequest(1_000_000), "PUT", first_blob(made)[7:], times=2)
    push(connect, f"{shop.host}/{name}:1", made, chunk_size=1_000_000)
    assert shop.count("PATCH") == 4
    assert is_complete(connect, f"{plain.host}/{name}:1", made)


@pytest.mark.parametrize("status", [404, 405, 411, 413, 501])
def test_chunks_where_the_whole_is_refused(
    shop: Front, plain: RegistryServer, connect: Connect, name: str, made: Image, status: int
) -> None:
    shop.fault(Answer(status), "PUT", first_blob(made)[7:])
    push(connect, f"{shop.host}/{name}:1", made, chunk_size=1_000_000)
    assert shop.count("PATCH") == 4
    assert is_complete(connect, f"{plain.host}/{name}:1", made)


def test_a_repository_that_must_be_made_first(shop: Front, connect: Connect, name: str, made: Image) -> None:
    """Amazon's registry answers so; asking again, or in chunks, does not help."""
    unknown = Answer(404, {}, b'{"errors":[{"code":"NAME_UNKNOWN","message":"no such repository"}]}')
    shop.fault(unknown, "POST", times=99)
    with pytest.raises(RegistryError, match="404 NAME_UNKNOWN while starting an upload: no such repository"):
        push(connect, f"{shop.host}/{name}:1", image(made.layers[0]), retries=4, parallel=1)
    assert shop.count("POST") <= 2  # layer and config


def test_large_blobs_go_in_chunks_at_once(
    shop: Front, plain: RegistryServer, connect: Connect, name: str, made: Image
) -> None:
    push(connect, f"{shop.host}/{name}:1", made, monolithic_limit=1_000_000, chunk_size=1 << 20)
    ranges = [seen.headers["Content-Range"] for seen in shop.seen if seen.method == "PATCH"]
    assert ranges[:2] == ["0-1048575", "1048576-2097151"]
    assert is_complete(connect, f"{plain.host}/{name}:1", made)


@pytest.mark.parametrize("trouble", [CutRequest(300_000), DropAnswer(), BUSY, Answer(502)])
def test_a_broken_chunk_is_completed(
    shop: Front, plain: RegistryServer, connect: Connect, name: str, made: Image, trouble: Any
) -> None:
    shop.fault(Answer(413), "PUT", first_blob(made)[7:])
    shop.fault(trouble, "PATCH", times=2)
    push(connect, f"{shop.host}/{name}:1", made, chunk_size=1_000_000)
    assert is_complete(connect, f"{plain.host}/{name}:1", made)


def test_an_upload_that_the_registry_forgot_starts_anew(
    shop: Front, plain: RegistryServer, connect: Connect, name: str, made: Image
) -> None:
    unknown = Answer(404, {}, b'{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN"}]}')
    shop.fault(Answer(413), "PUT", first_blob(made)[7:])
    shop.fault(unknown, "PATCH")
    shop.fault(Answer(400, {}, b'{"errors":[{"code":"BLOB_UPLOAD_INVALID"}]}'), "PUT", "digest=")
    push(connect, f"{shop.host}/{name}:1", made, chunk_size=1_000_000)
    assert is_complete(connect, f"{plain.host}/{name}:1", made)


def test_a_commit_whose_answer_got_lost(
    shop: Front, plain: RegistryServer, connect: Connect, name: str, made: Image
) -> None:
    shop.fault(DropAnswer(), "PUT", first_blob(made)[7:])
    push(connect, f"{shop.host}/{name}:1", made)
    assert shop.count("PUT", first_blob(made)[7:]) == 1  # the second look found the blob
    assert is_complete(connect, f"{plain.host}/{name}:1", made)


def test_a_manifest_whose_answer_got_lost(
    shop: Front, plain: RegistryServer, connect: Connect, name: str, made: Image
) -> None:
    shop.fault(DropAnswer(), "PUT", "manifests/")
    push(connect, f"{shop.host}/{name}:1", made)
    assert is_complete(connect, f"{plain.host}/{name}:1", made)


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
    assert is_complete(connect, f"{plain.host}/{copy}:1", pushed)


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
        push(connect, f"{shop.host}/{name}:1", made)
    shop.fault(Answer(403), "PUT", "manifests/")
    push(connect, f"{shop.host}/{name}:1", made, push_retries=1)
    assert is_complete(connect, f"{plain.host}/{name}:1", made)


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
