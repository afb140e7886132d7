"""Images to a registry and back, seen by skopeo."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from builder.errors import ImageError, RegistryError
from builder.events import Transfer
from builder.oci import layout, media_types
from builder.oci.archive import read_archive, write_archive
from builder.oci.descriptor import Descriptor
from builder.oci.image import Layer
from builder.oci.index import Index
from builder.oci.platform import Platform
from builder.oci.reference import Reference
from builder.registry.download import RemoteBlob
from builder.registry.pull import resolve
from builder.registry.push import Uploader
from tests.images import AMD64, image, layer, noise
from tests.registry.client import Recorder, push
from tests.registry.conftest import Connect
from tests.servers.registry import RegistryServer

ARM64 = Platform("linux", "arm64")
needs_skopeo = pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed")


def skopeo(*arguments: str) -> Any:
    ended = subprocess.run(["skopeo", *arguments], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout) if ended.stdout.startswith("{") else ended.stdout


@needs_skopeo
@pytest.mark.parametrize("image_format", ["oci", "docker"])
def test_skopeo_sees_what_was_pushed(
    plain: RegistryServer, connect: Connect, name: str, image_format: media_types.ImageFormat, tmp_path: Path
) -> None:
    made = image(layer({"a": noise(2_000_000)}), layer({"b": b"2"}, "none"), image_format=image_format)
    reference = Reference.parse(f"{plain.host}/{name}:1")
    registries = connect()
    with Uploader(registries, registries.repository(reference, "push")) as uploader:
        descriptor = uploader.finish(made, ["1", "2"])
    shown = skopeo("inspect", "--tls-verify=false", f"docker://{reference}")
    assert shown["Digest"] == descriptor.digest == made.manifest()[0].digest
    assert sorted(shown["RepoTags"]) == ["1", "2"]
    assert sorted(registries.repository(reference, "pull").tags()) == ["1", "2"]
    raw = skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{reference}")
    assert raw["mediaType"] == made.manifest()[0].media_type
    skopeo("copy", "--src-tls-verify=false", f"docker://{reference}", f"dir:{tmp_path}/copy")


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_what_was_pushed_is_pulled(
    plain: RegistryServer, connect: Connect, name: str, compression: media_types.Compression
) -> None:
    made = image(layer({"a": noise(3_000_000)}, compression), layer({}))
    reference = Reference.parse(f"{plain.host}/{name}:1")
    digest = push(connect, reference, made).digest
    for wanted in (reference, reference.with_digest(digest)):
        found = resolve(wanted, AMD64, connect())
        assert found.image == made
        assert (found.digest, found.index_digest, found.config) == (digest, "", made.config_bytes())
    for mine, theirs in zip(made.layers, found.image.layers):
        with mine.blob.open() as expected, theirs.blob.open() as got:
            assert got.read() == expected.read()


def test_resolving_fetches_no_layer(registry: Callable[..., RegistryServer], connect: Connect) -> None:
    server = registry()
    made = image(layer({"a": noise(100_000)}))
    reference = Reference.parse(f"{server.host}/app:1")
    push(connect, reference, made)
    before = len(server.requests("GET", "/v2/app/"))
    resolve(reference, AMD64, connect())
    assert [line.split()[1].rpartition("/")[2] for line in server.requests("GET", "/v2/app/")[before:]] == [
        "1",
        Descriptor.of("", made.config_bytes()).digest,
    ]


def test_pushing_again_sends_no_blob(registry: Callable[..., RegistryServer], connect: Connect) -> None:
    server = registry()
    made = image(layer({"a": noise(100_000)}))
    reference = Reference.parse(f"{server.host}/app:1")
    push(connect, reference, made)
    before = len(server.requests("POST"))
    push(connect, reference.with_tag("2"), made)
    assert server.requests("POST")[before:] == []


def test_layers_go_up_while_the_build_goes_on(plain: RegistryServer, connect: Connect, name: str) -> None:
    """start() returns at once, and finish() finds the layer there."""
    registries = connect()
    repository = registries.repository(Reference.parse(f"{plain.host}/{name}"), "push")
    open_it = threading.Event()
    first = layer({"a": noise(50_000)})

    class Slow:
        def open(self) -> Any:
            open_it.wait()
            return first.blob.open()

    slow = Layer(first.descriptor, first.diff_id, Slow())
    with Uploader(registries, repository) as uploader:
        uploader.start(slow)
        uploader.start(slow)
        assert not repository.has_blob(first.descriptor.digest)
        open_it.set()
        uploader.finish(image(slow), ["1"])
    assert len(plain.requests("POST", f"/v2/{name}/")) == 2  # the layer once, the config


def test_blobs_are_mounted_from_where_they_lie(registry: Callable[..., RegistryServer], connect: Connect) -> None:
    server = registry()
    source = Reference.parse(f"{server.host}/base:1")
    push(connect, source, image(layer({"a": noise(100_000)})))
    base = resolve(source, AMD64, registries := connect()).image
    with Uploader(registries, registries.repository(Reference.parse(f"{server.host}/app"), "push")) as uploader:
        uploader.finish(base, ["1"])
    posts = server.requests("POST", "/v2/app/")
    assert sum("mount=" in line and line.endswith("201") for line in posts) == 2  # layer and config
    assert server.requests("GET", base.layers[0].descriptor.digest) == []


def test_the_second_destination_mounts_from_the_first(
    registry: Callable[..., RegistryServer], connect: Connect
) -> None:
    server = registry()
    registries = connect()
    made = image(layer({"a": noise(3_000_000)}))
    names = ("one", "two", "three")
    uploaders = [
        Uploader(registries, registries.repository(Reference.parse(f"{server.host}/{name}"), "push")) for name in names
    ]
    for uploader in uploaders:
        uploader.start(made.layers[0])
    for uploader in uploaders:
        uploader.finish(made, ["1"])
        uploader.close()
    sent = [line for line in server.requests("PUT") if made.layers[0].descriptor.digest[7:] in line]
    assert len(sent) == 1


def test_from_one_registry_to_another(registry: Callable[..., RegistryServer], connect: Connect) -> None:
    one, two = registry(), registry()
    made = image(layer({"a": noise(3_000_000)}))
    push(connect, Reference.parse(f"{one.host}/base:1"), made)
    registries = connect()
    found = resolve(Reference.parse(f"{one.host}/base:1"), AMD64, registries)
    with Uploader(registries, registries.repository(Reference.parse(f"{two.host}/app"), "push")) as uploader:
        assert uploader.copy(found, ["1"]).digest == found.digest
    assert resolve(Reference.parse(f"{two.host}/app:1"), AMD64, registries).image == made


def test_an_index(plain: RegistryServer, connect: Connect, name: str) -> None:
    reference = Reference.parse(f"{plain.host}/{name}:1")
    registries = connect()
    images = {platform: image(platform=platform) for platform in (AMD64, ARM64)}
    with Uploader(registries, registries.repository(reference, "push")) as uploader:
        entries = []
        for platform, made in images.items():
            descriptor = uploader.finish(made, [])
            entries.append(Descriptor(descriptor.media_type, descriptor.digest, descriptor.size, platform))
        index = uploader.finish_index(Index(tuple(entries)), ["1"])
    for platform, made in images.items():
        found = resolve(reference, platform, registries)
        assert (found.image, found.index_digest) == (made, index.digest)
        assert found.digest == made.manifest()[0].digest
    with pytest.raises(ImageError, match=r"has no image for linux/s390x; there is linux/amd64, linux/arm64"):
        resolve(reference, Platform("linux", "s390x"), registries)
    if shutil.which("skopeo"):
        shown = skopeo("inspect", "--override-arch=arm64", "--tls-verify=false", f"docker://{reference}")
        assert shown["Architecture"] == "arm64"


def test_layouts_and_tarballs_are_pushed_as_they_are(
    plain: RegistryServer, connect: Connect, name: str, tmp_path: Path
) -> None:
    made = image(layer({"a": b"1"}, "none"))
    layout.write(tmp_path / "layout", made)
    write_archive(tmp_path / "a.tar", made, [])
    registries = connect()
    with Uploader(registries, registries.repository(Reference.parse(f"{plain.host}/{name}"), "push")) as uploader:
        from_layout = layout.read(layout.Location(tmp_path / "layout"), AMD64)
        assert uploader.copy(from_layout, ["layout"]).digest == made.manifest()[0].digest
        uploader.copy(read_archive(tmp_path / "a.tar", tmp_path).resolved, ["tar"])
    assert resolve(Reference.parse(f"{plain.host}/{name}:tar"), AMD64, registries).config == made.config_bytes()


def test_manifests_are_deleted(plain: RegistryServer, connect: Connect, name: str) -> None:
    reference = Reference.parse(f"{plain.host}/{name}:1")
    digest = push(connect, reference, image()).digest
    repository = connect().repository(reference, "push")
    assert (head := repository.head_manifest("1")) is not None
    assert head.digest == digest
    repository.delete_manifest(digest)
    assert repository.head_manifest("1") is None
    with pytest.raises(RegistryError, match="404 MANIFEST_UNKNOWN while fetching the manifest of 1"):
        resolve(reference, AMD64, connect())


def test_an_image_that_is_not_there(plain: RegistryServer, connect: Connect) -> None:
    with pytest.raises(RegistryError) as caught:
        resolve(Reference.parse(f"{plain.host}/no/such:1"), AMD64, connect())
    assert caught.value.status == 404
    assert caught.value.message.startswith(f"{plain.host}/no/such: 404 ")


def test_push_is_checked_without_leaving_an_upload(registry: Callable[..., RegistryServer], connect: Connect) -> None:
    server = registry()
    connect().repository(Reference.parse(f"{server.host}/app"), "push").check_push()
    answers = [(line.split()[0], line.split()[-1]) for line in server.requests(path="/v2/app/")]
    assert answers == [("POST", "202"), ("DELETE", "204")]


def test_events(plain: RegistryServer, connect: Connect, name: str) -> None:
    registries, heard = connect(), Recorder()
    made = image(layer({"a": noise(3_000_000)}))
    reference = Reference.parse(f"{plain.host}/{name}:1")
    with Uploader(registries, registries.repository(reference, "push"), heard) as uploader:
        uploader.finish(made, ["1"])
    with resolve(reference, AMD64, connect(), heard).image.layers[0].blob.open() as stream:
        stream.read()
    digest, size = made.layers[0].descriptor.digest, made.layers[0].descriptor.size
    for kind in ("push", "pull"):
        transfers = [
            event
            for event in heard.events
            if isinstance(event, Transfer) and event.kind == kind and event.name == digest
        ]
        done = [event.done for event in transfers]
        assert len(transfers) > 2
        assert done == sorted(done)
        assert {event.total for event in transfers} == {size}
        assert [event.finished for event in transfers] == [False] * (len(transfers) - 1) + [True]
        assert transfers[-1].done == size
    assert f"Retrieving image manifest {reference}" in heard.texts
    assert f"Retrieving image {reference} from registry {plain.host}" in heard.texts


def test_a_layer_that_fails_publishes_nothing(plain: RegistryServer, connect: Connect, name: str) -> None:
    class Broken:
        def open(self) -> Any:
            raise ImageError("gone")

    good = layer({"a": b"1"})
    registries = connect()
    repository = registries.repository(Reference.parse(f"{plain.host}/{name}"), "push")
    with pytest.raises(ImageError, match="gone"), Uploader(registries, repository) as uploader:
        uploader.finish(image(Layer(good.descriptor, good.diff_id, Broken())), ["1"])
    assert plain.requests("PUT", f"/v2/{name}/manifests") == []


def test_a_layer_that_is_not_what_it_says_is_never_published(
    plain: RegistryServer, connect: Connect, name: str
) -> None:
    good, other = layer({"a": b"1"}), layer({"a": b"2"})
    registries = connect()
    repository = registries.repository(Reference.parse(f"{plain.host}/{name}"), "push")
    for blob in (other.blob, layer({"a": noise(5000)}).blob, layer({}).blob):
        wrong = Layer(good.descriptor, good.diff_id, blob)
        with pytest.raises((ImageError, RegistryError)), Uploader(connect(), repository) as uploader:
            uploader.finish(image(wrong), ["1"])
    assert connect().repository(Reference.parse(f"{plain.host}/{name}"), "pull").head_manifest("1") is None


def test_remote_blobs_fall_back(plain: RegistryServer, connect: Connect, name: str) -> None:
    made = image(layer({"a": b"1"}))
    push(connect, Reference.parse(f"{plain.host}/{name}:1"), made)
    registries = connect()
    empty = registries.repository(Reference.parse(f"{plain.host}/{name}-empty"), "pull")
    full = registries.repository(Reference.parse(f"{plain.host}/{name}"), "pull")
    descriptor = made.layers[0].descriptor
    with RemoteBlob(empty, descriptor, (lambda: full,)).open() as stream:
        assert len(stream.read()) == descriptor.size
    with pytest.raises(RegistryError, match=f"{name}-empty: 404"):
        RemoteBlob(empty, descriptor, (lambda: empty,)).open()
