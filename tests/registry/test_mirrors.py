"""--registry-map and --registry-mirror."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from builder.errors import RegistryError, UsageError
from builder.events import Message
from builder.oci.reference import Reference
from builder.registry.mirrors import Candidate, Mirror, Mirrors
from builder.registry.pull import resolve
from builder.registry.push import Uploader
from tests.images import AMD64, image, layer, noise
from tests.registry.client import Recorder
from tests.registry.conftest import Connect
from tests.servers.front import Answer, Front
from tests.servers.registry import RegistryServer, free_port

MADE = image(layer({"a": noise(50_000)}))


def candidates(text: str, *maps: str, mirrors: tuple[str, ...] = (), fallback: bool = True) -> list[str]:
    found = Mirrors.parse(maps, mirrors, fallback=fallback).candidates(Reference.parse(text))
    return [f"{item.scheme}{'://' if item.scheme else ''}{item.reference.qualified}" for item in found]


HUB = "index.docker.io/library/debian:12"


@pytest.mark.parametrize("key", ["docker.io", "index.docker.io", "registry-1.docker.io"])
def test_every_name_of_docker_hub(key: str) -> None:
    assert candidates("debian:12", f"{key}=mirror.gcr.io") == ["mirror.gcr.io/library/debian:12", HUB]


@pytest.mark.parametrize(
    ("value", "first"),
    [
        ("gcr.io=127.0.0.1", "127.0.0.1/a/b:1"),
        ("gcr.io=192.168.0.1:5000", "192.168.0.1:5000/a/b:1"),
        ("gcr.io=harbor.private.io/theproject", "harbor.private.io/theproject/a/b:1"),
        ("gcr.io=harbor.private.io/the/project/", "harbor.private.io/the/project/a/b:1"),
        ("gcr.io=http://mirror:80/x", "http://mirror:80/x/a/b:1"),
        ("gcr.io=https://mirror.example", "https://mirror.example/a/b:1"),
        ("gcr.io=docker.io/me", "index.docker.io/me/a/b:1"),
        (" gcr.io = mirror.example ", "mirror.example/a/b:1"),
    ],
)
def test_forms_of_a_mirror(value: str, first: str) -> None:
    assert candidates("gcr.io/a/b:1", value) == [first, "gcr.io/a/b:1"]


def test_several_in_order() -> None:
    value = "index.docker.io=docker-io.mirrors.corp.net;index.docker.io=mirror.gcr.io;gcr.io=127.0.0.1"
    assert candidates("debian:12", value, "docker.io=last.example", mirrors=("mirror.example/path",)) == [
        "docker-io.mirrors.corp.net/library/debian:12",
        "mirror.gcr.io/library/debian:12",
        "last.example/library/debian:12",
        "mirror.example/path/library/debian:12",
        HUB,
    ]
    assert candidates("gcr.io/x:1", value) == ["127.0.0.1/x:1", "gcr.io/x:1"]
    assert candidates("quay.io/x:1", value) == ["quay.io/x:1"]


def test_without_fallback() -> None:
    assert candidates("debian:12", mirrors=("m.example",), fallback=False) == ["m.example/library/debian:12"]
    assert candidates("gcr.io/x:1", mirrors=("m.example",), fallback=False) == ["gcr.io/x:1"]


def test_digests_stay() -> None:
    digest = "sha256:" + "a" * 64
    assert candidates(f"debian@{digest}", mirrors=("m.example",))[0] == f"m.example/library/debian@{digest}"


def test_empty_values_are_not_given() -> None:
    assert Mirrors.parse(["", " ; "], ["", " "]) == Mirrors()
    assert Mirrors().candidates(Reference.parse("debian")) == (Candidate(Reference.parse("debian")),)


@pytest.mark.parametrize(
    "value", ["gcr.io", "gcr.io=", "=mirror", "gcr.io=ftp://m", "gcr.io/path=m", "https://gcr.io=m", "gcr.io=m/UPPER"]
)
def test_refused_maps(value: str) -> None:
    with pytest.raises(UsageError):
        Mirrors.parse([value])


def test_refused_mirrors() -> None:
    for text in ("", "ftp://x", "a b", "http://"):
        with pytest.raises(UsageError):
            Mirror.parse(text)


@pytest.fixture
def hub(plain: RegistryServer, connect: Connect, name: str) -> str:
    """A registry reference, pushed, whose registry the tests map."""
    registries = connect()
    reference = Reference.parse(f"{plain.host}/{name}:1")
    with Uploader(registries, registries.repository(reference, "push")) as uploader:
        uploader.finish(MADE, ["1"])
    return str(reference)


def fetch(connect: Connect, reference: str, *maps: str, fallback: bool = True) -> tuple[bytes, Recorder]:
    heard = Recorder()
    registries = connect(mirrors=Mirrors.parse(maps, fallback=fallback))
    found = resolve(Reference.parse(reference), AMD64, registries, heard)
    assert found.image == MADE
    assert found.reference == reference
    with found.image.layers[0].blob.open() as stream:
        return stream.read(), heard


def test_a_pull_through_mirror(
    registry: Callable[..., RegistryServer],
    troubled: Callable[..., Front],
    plain: RegistryServer,
    connect: Connect,
    hub: str,
) -> None:
    digest = MADE.layers[0].descriptor.digest
    original = troubled(plain.host)
    mirror = troubled(registry(mirror_of=f"http://{original.host}").host)
    fetch(connect, hub, f"{plain.host}={mirror.host}")
    assert mirror.count("GET", "/manifests/") == 1
    assert mirror.count("GET", digest) == 1
    assert original.count("GET", digest) >= 1  # the mirror asked
    fetch(connect, hub, f"{plain.host}=http://{mirror.host}")
    assert mirror.count("GET", digest) == 2


def test_mirrors_that_fail_are_passed_over_with_a_warning(plain: RegistryServer, connect: Connect, hub: str) -> None:
    dead = f"127.0.0.1:{free_port()}"
    _, heard = fetch(connect, hub, f"{plain.host}={dead};{plain.host}={plain.host}/nowhere")
    warnings = [event.text for event in heard.events if isinstance(event, Message) and event.level == "warning"]
    assert len(warnings) == 2
    assert f"cannot reach {dead}" in warnings[0]
    assert "nowhere" in warnings[1]
    assert warnings[1].endswith(f"trying {plain.host}")


def test_a_mirror_with_wrong_content_is_passed_over(
    plain: RegistryServer, troubled: Callable[..., Front], connect: Connect, hub: str
) -> None:
    front = troubled(plain.host)
    front.fault(Answer(200, {"Content-Type": "text/html"}, b"<html>log in first</html>"), "GET", "manifests/")
    fetch(connect, hub, f"{plain.host}=http://{front.host}")


def test_a_mirror_without_the_blob(
    plain: RegistryServer, troubled: Callable[..., Front], connect: Connect, hub: str
) -> None:
    front = troubled(plain.host)
    front.fault(Answer(404), "GET", MADE.layers[0].descriptor.digest, times=9)
    fetch(connect, hub, f"{plain.host}={front.host}")


def test_no_fallback(plain: RegistryServer, connect: Connect, hub: str) -> None:
    with pytest.raises(RegistryError, match="image not found on any configured mapped registries for") as caught:
        fetch(connect, hub, f"{plain.host}={plain.host}/nowhere", fallback=False)
    assert "404" in caught.value.message
    assert "--skip-default-registry-fallback" in caught.value.hint


def test_without_any_the_registrys_own_error(plain: RegistryServer, connect: Connect, hub: str, tmp_path: Path) -> None:
    with pytest.raises(RegistryError) as caught:
        fetch(connect, f"{plain.host}/no/such:1", f"{plain.host}={plain.host}/nowhere")
    assert caught.value.message.startswith(f"{plain.host}/no/such: 404")
