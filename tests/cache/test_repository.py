"""A layer cache in a registry, and registries that are of no use."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from builder.cache import CacheDamaged, CacheKey, Entry
from builder.cache.repository import RepositoryCache
from builder.oci.reference import Reference
from builder.registry.credentials import Credentials
from builder.registry.registries import Registries
from builder.registry.settings import RegistrySettings
from tests.cache.conftest import Told, check_that_what_is_there_may_stay
from tests.images import layer, noise
from tests.servers.certificates import Authority
from tests.servers.front import Answer, Corrupt, DropAnswer, Front, Hold, Trouble
from tests.servers.registry import RegistryServer, docker_registry
from tests.servers.tokens import token_server

KEY = CacheKey.of("key")
KEYS = [CacheKey.of(name) for name in "abcdef"]
ENTRY = Entry(layer({"file": noise(3000)}), "2026-01-02T03:04:05.000000006Z", "below", "copied")

Open = Callable[..., RepositoryCache]


@pytest.fixture
def cache_at(tmp_path: Path, told: Told) -> Iterator[Open]:
    """Caches in repositories; each with connections of its own."""
    with contextlib.ExitStack() as stack:

        def make(reference: str, environ: dict[str, str] | None = None, *, writable: bool = True) -> RepositoryCache:
            variables = {"HOME": str(tmp_path), **(environ or {})}
            registries = Registries(RegistrySettings(), Credentials(variables), variables)
            stack.callback(registries.close)
            cache = RepositoryCache(Reference.parse(reference), registries, told, writable=writable)
            stack.callback(cache.close, cancel=True)
            return cache

        yield make


def test_what_was_put_is_got(cache_at: Open, server: RegistryServer, name: str, told: Told) -> None:
    cache = cache_at(f"{server.host}/{name}")
    assert cache.get(KEY) is None
    cache.put(KEY, ENTRY, "RUN make")
    seen = len(server.requests())
    found = cache_at(f"{server.host}/{name}").get(KEY)
    assert server.requests()[seen:] == [f"GET /v2/{name}/manifests/{KEY} 200"]
    assert found is not None
    assert found == ENTRY
    with found.layer.blob.open() as stream, ENTRY.layer.blob.open() as original:
        assert stream.read() == original.read()
    assert cache.get(CacheKey.of("other")) is None
    assert told.messages == []


def test_an_entry_is_an_image_that_other_tools_read(cache_at: Open, server: RegistryServer, name: str) -> None:
    cache_at(f"{server.host}/{name}").put(KEY, ENTRY, "RUN make")
    answer = subprocess.check_output(
        ["skopeo", "inspect", "--config", "--tls-verify=false", f"docker://{server.host}/{name}:{KEY}"]
    )
    config = json.loads(answer)
    assert config["rootfs"]["diff_ids"] == [ENTRY.layer.diff_id]
    assert config["created"] == ENTRY.created


def test_putting_again_replaces(cache_at: Open, server: RegistryServer, name: str) -> None:
    cache = cache_at(f"{server.host}/{name}")
    cache.put(KEY, ENTRY, "RUN make")
    other = Entry(layer({"file": b"other"}), "2027-01-01T00:00:00Z", "below")
    cache.put(KEY, other, "RUN make")
    assert cache.get(KEY) == other


@pytest.mark.parametrize(
    "trouble",
    [
        Answer(401, {"WWW-Authenticate": 'Basic realm="x"'}),
        Answer(401, {"WWW-Authenticate": 'Bearer realm="http://127.0.0.1:1/token"'}),
        Answer(401),
        Answer(403),
        Answer(429, {"Retry-After": "1000"}),
        Answer(500, body=b"<html>"),
        Answer(503),
        Answer(302, {"Location": "http://127.0.0.1:1/"}),
        Answer(302, {"Location": "/v2/loop"}),
    ],
    ids=["basic", "bearer", "401", "403", "429", "500", "503", "elsewhere", "loop"],
)
def test_a_registry_that_refuses_is_left_alone(
    cache_at: Open, shop: Front, name: str, told: Told, trouble: Trouble
) -> None:
    shop.fault(trouble, path="/v2/", times=1000)
    cache = cache_at(f"{shop.host}/{name}")
    assert [cache.get(key) for key in KEYS] == [None] * len(KEYS)
    for key in KEYS:
        cache.put(key, ENTRY, "RUN make")
    assert len(told.warnings) == 1
    assert f"{shop.host}/{name}" in told.warnings[0]
    assert shop.count("GET", "/manifests/") <= 2
    assert shop.count("POST") <= 3


def test_a_repository_that_is_not_there_is_empty(cache_at: Open, shop: Front, name: str, told: Told) -> None:
    shop.fault(Answer(404), path=f"/v2/{name}", times=1000)
    cache = cache_at(f"{shop.host}/{name}")
    assert [cache.get(key) for key in KEYS] == [None] * len(KEYS)
    assert told.warnings == []
    cache.put(KEY, ENTRY, "RUN make")
    cache.put(KEY, ENTRY, "RUN make")
    assert len(told.warnings) == 1
    assert "cannot write the cache" in told.warnings[0]


def test_one_that_may_not_be_read_may_be_written(cache_at: Open, shop: Front, name: str, told: Told) -> None:
    """Some registries deny what is not there yet, and make it when it is written."""
    shop.fault(Answer(403), "GET", f"/v2/{name}", times=1000)
    cache = cache_at(f"{shop.host}/{name}")
    assert cache.get(KEY) is None
    cache.put(KEY, ENTRY, "RUN make")
    shop.faults.clear()
    assert cache_at(f"{shop.host}/{name}").get(KEY) == ENTRY


def test_an_accident_is_forgiven(cache_at: Open, shop: Front, name: str, told: Told) -> None:
    cache = cache_at(f"{shop.host}/{name}")
    shop.fault(Answer(503), "POST")
    shop.fault(DropAnswer(), "PUT", "/blobs/")
    cache.put(KEY, ENTRY, "RUN make")
    shop.fault(Answer(500), "GET", "/manifests/")
    assert cache.get(KEY) == ENTRY
    assert told.warnings == []


def _manifest(**members: Any) -> bytes:
    descriptor = {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": "sha256:" + "0" * 64, "size": 1}
    config = {**descriptor, "mediaType": "application/vnd.oci.image.config.v1+json"}
    media_type = "application/vnd.oci.image.manifest.v1+json"
    value = {"schemaVersion": 2, "mediaType": media_type, "config": config, "layers": [descriptor], **members}
    return json.dumps(value).encode()


_RIGHT = {
    "limpet.cache.diff-id": "sha256:" + "1" * 64,
    "limpet.cache.below": "",
    "org.opencontainers.image.created": "2026-01-01T00:00:00Z",
}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'"text"',
        b"\x00\xff" * 100,
        b'{"schemaVersion":2}',
        b'{"schemaVersion":2,"manifests":[]}',
        _manifest(),
        _manifest(layers=[]),
        _manifest(layers={}),
        _manifest(annotations={**_RIGHT, "limpet.cache.diff-id": "sha256:short"}),
        _manifest(annotations={**_RIGHT, "limpet.cache.below": 7}),
        _manifest(annotations=[1]),
        _manifest(annotations="text"),
        _manifest(annotations=_RIGHT, layers=[{"digest": "sha256:" + "0" * 64, "size": -1}]),
        b"x" * (5 << 20),
    ],
)
def test_garbage_is_no_entry(cache_at: Open, shop: Front, name: str, told: Told, body: bytes) -> None:
    shop.fault(Answer(200, {"Content-Type": "application/json"}, body), "GET", f"/v2/{name}/manifests")
    cache = cache_at(f"{shop.host}/{name}")
    assert cache.get(KEY) is None
    assert len(told.warnings) == 1


def test_a_manifest_that_is_right_is_an_entry(cache_at: Open, shop: Front, name: str) -> None:
    """What the garbage above would be without its fault."""
    shop.fault(Answer(200, {}, _manifest(annotations=_RIGHT)), "GET", f"/v2/{name}/manifests")
    assert cache_at(f"{shop.host}/{name}").get(KEY) is not None


def test_a_manifest_that_is_changed_on_the_way_is_no_entry(cache_at: Open, shop: Front, name: str, told: Told) -> None:
    cache = cache_at(f"{shop.host}/{name}")
    cache.put(KEY, ENTRY, "RUN make")
    shop.fault(Corrupt(), "GET", "/manifests/")
    assert cache.get(KEY) is None
    assert len(told.warnings) == 1
    assert cache.get(KEY) == ENTRY


@pytest.mark.parametrize("trouble", [Corrupt(), Answer(404), Answer(403)])
def test_a_layer_that_cannot_be_had_says_so(cache_at: Open, shop: Front, name: str, trouble: Trouble) -> None:
    cache = cache_at(f"{shop.host}/{name}")
    cache.put(KEY, ENTRY, "RUN make")
    found = cache.get(KEY)
    assert found is not None
    shop.fault(trouble, "GET", "/blobs/", times=100)
    with pytest.raises(CacheDamaged, match=f"cached layer .*{KEY}"), found.layer.blob.open() as stream:
        stream.read()


def test_one_that_holds_back_a_layer_is_left_alone(cache_at: Open, shop: Front, name: str, told: Told) -> None:
    cache = cache_at(f"{shop.host}/{name}")
    for key in KEYS:
        cache.put(key, ENTRY, "RUN make")
    found = [cache.get(key) for key in KEYS]
    end = threading.Event()
    shop.fault(Hold(end, after=1000), "GET", "/blobs/", times=1000)
    shop.seen.clear()
    for entry in found:
        assert entry is not None
        with pytest.raises(CacheDamaged), entry.layer.blob.open() as stream:
            stream.read()
    end.set()
    assert shop.count("GET") == 1
    assert cache.get(KEY) is None
    assert not cache.put(KEY, ENTRY, "RUN make")
    assert len(shop.seen) == 1


def test_one_that_never_answers(cache_at: Open, name: str, told: Told) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        cache = cache_at(f"127.0.0.1:{silent.getsockname()[1]}/{name}")
        assert [cache.get(key) for key in KEYS] == [None] * len(KEYS)
        cache.put(KEY, ENTRY, "RUN make")
    assert len(told.warnings) == 1


def test_one_that_is_not_there(cache_at: Open, name: str, told: Told) -> None:
    cache = cache_at(f"127.0.0.1:1/{name}")
    assert [cache.get(key) for key in KEYS] == [None] * len(KEYS)
    cache.put(KEY, ENTRY, "RUN make")
    assert len(told.warnings) == 1


def test_one_with_a_login(cache_at: Open, name: str, told: Told, tmp_path: Path) -> None:
    with docker_registry(tmp_path / "private", users={"user": "password"}) as private:
        cache_at(f"{private.host}/{name}").put(KEY, ENTRY, "RUN make")
        assert len(told.warnings) == 1
        config = {"auths": {private.host: {"username": "user", "password": "password"}}}
        cache = cache_at(f"{private.host}/{name}", {"DOCKER_AUTH_CONFIG": json.dumps(config)})
        cache.put(KEY, ENTRY, "RUN make")
        assert cache.get(KEY) == ENTRY
    assert len(told.warnings) == 1


def test_one_that_is_only_read_asks_for_no_more(cache_at: Open, name: str, told: Told, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    with token_server(authority.server("signer")) as tokens:
        tokens.passwords = {"writer": "password"}
        tokens.may = {"": {name: "pull"}, "writer": {name: "pull,push"}}
        with docker_registry(tmp_path / "registry", token=tokens.auth) as private:
            config = {"auths": {private.host: {"username": "writer", "password": "password"}}}
            writer = cache_at(f"{private.host}/{name}", {"DOCKER_AUTH_CONFIG": json.dumps(config)})
            writer.put(KEY, ENTRY, "RUN make")
            tokens.asked.clear()
            reader = cache_at(f"{private.host}/{name}", writable=False)
            assert reader.get(KEY) == ENTRY
            reader.put(KEYS[0], ENTRY, "RUN make")
            assert {scope for asked in tokens.asked for scope in asked.scopes} == {f"repository:{name}:pull"}
            assert writer.get(KEYS[0]) is None
    assert told.warnings == []


def test_what_is_being_written_can_be_stopped(cache_at: Open, shop: Front, name: str, told: Told) -> None:
    cache = cache_at(f"{shop.host}/{name}")
    cache.stop()
    cache.put(KEY, ENTRY, "RUN make")
    assert shop.count("POST") == 0
    assert told.warnings == []


def test_records_are_kept_beside_entries(cache_at: Open, server: RegistryServer, name: str, told: Told) -> None:
    cache = cache_at(f"{server.host}/{name}")
    assert cache.get_record(KEY) is None
    data = b"record " * 1000
    cache.put_record(KEY, data)
    assert cache_at(f"{server.host}/{name}").get_record(KEY) == data
    assert cache.get(KEY) is None
    assert told.messages == []


@pytest.mark.parametrize("annotation", ["", "text", "eJw=", None])
def test_a_damaged_record_is_none(cache_at: Open, shop: Front, name: str, annotation: str | None) -> None:
    body = _manifest(annotations={"limpet.cache.build": annotation})
    shop.fault(Answer(200, {}, body), "GET", f"/v2/{name}/manifests")
    assert cache_at(f"{shop.host}/{name}").get_record(KEY) in (None, b"")


def test_what_is_there_may_stay(cache_at: Open, server: RegistryServer, name: str) -> None:
    cache = cache_at(f"{server.host}/{name}")
    check_that_what_is_there_may_stay(cache, KEY, ENTRY)
