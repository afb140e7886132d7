"""Builds with a layer cache in a registry: what moves, and what happens when the registry is of no use."""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.build.program import Builder, tags
from tests.servers.front import Answer, Corrupt, Front, Hold, front
from tests.servers.registry import RegistryServer, docker_registry

FIVE_STAGES = """
FROM base AS a
COPY a /a
RUN cat /a > /1
FROM base AS b
RUN echo 2 > /2
FROM a AS c
COPY --from=b /2 /2
RUN cat /1 /2 > /3
FROM base AS d
COPY --from=c /3 /3
RUN --mount=from=b,target=/b cat /b/2 /3 > /4
FROM base
WORKDIR /w
COPY --from=d /4 .
COPY --from=c /3 .
RUN cat 3 4 > 5
"""


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A repository that only this test uses."""
    return re.sub("[^a-z0-9]+", "-", request.node.name.lower()).strip("-")


@pytest.fixture
def shop(registry: RegistryServer) -> Iterator[Front]:
    """A front before the registry: another registry, for all that a build can tell."""
    with front(registry.host) as server:
        yield server


@pytest.fixture
def own_base(limpet: Builder, registry: RegistryServer, base: Path) -> str:
    """FROM base is in the registry: nothing needs to be sent for it."""
    reference = f"{registry.host}/base:1"
    subprocess.run(
        ["skopeo", "copy", "-q", "--dest-tls-verify=false", f"oci:{base}", f"docker://{reference}"], check=True
    )
    return f"--build-context=base=docker-image://{reference}"


def hits(log: str) -> list[str]:
    return re.findall(r"Using caching version of cmd: (.*)", log)


def misses(log: str) -> list[str]:
    return re.findall(r"No cached layer found for cmd (.*)", log)


def warnings(log: str) -> list[str]:
    return [line for line in log.splitlines() if line.startswith("WARN")]


def digest(log: str) -> str:
    found = re.search(r"Pushed \S+@(sha256:\w+)", log)
    assert found, log
    return found[1]


def built(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stderr


class TestTraffic:
    def test_a_fully_cached_build_moves_next_to_nothing(
        self, limpet: Builder, registry: RegistryServer, name: str, own_base: str
    ) -> None:
        limpet.dockerfile(FIVE_STAGES, a="a")
        with counting(registry.host) as (host, moved):
            arguments = ("--cache", "--cache-copy-layers", f"--destination={host}/{name}:1", own_base)
            first = built(limpet(*arguments))
            assert misses(first)
            before, seen = moved(), len(registry.requests())
            second = built(limpet(*arguments))
            assert misses(second) == []
            assert digest(second) == digest(first)
            assert moved() - before < 100_000
            asked = registry.requests()[seen:]
            # Nothing is fetched but manifests and the base's configuration, nothing sent but the manifest.
            assert [line for line in asked if line.startswith("GET") and "/blobs/" in line][1:] == []
            assert [line for line in asked if line.startswith("PUT")] == [f"PUT /v2/{name}/manifests/1 201"]

    def test_layers_come_to_another_image_by_mount(
        self, limpet: Builder, registry: RegistryServer, name: str, own_base: str
    ) -> None:
        limpet.dockerfile("FROM base\nRUN head -c 100000 /dev/urandom > /x\n")
        built(limpet("--cache", f"--destination={registry.host}/{name}:1", own_base))
        seen = len(registry.requests())
        other = f"--destination={registry.host}/{name}-other:1"
        built(limpet("--cache", f"--cache-repo={registry.host}/{name}/cache", other, own_base))
        asked = registry.requests()[seen:]
        assert [line for line in asked if line.startswith("POST") and f"from={name}/cache" in line]
        assert [line for line in asked if line.startswith("PATCH")] == []

    def test_each_layer_is_sent_once(self, limpet: Builder, registry: RegistryServer, name: str, own_base: str) -> None:
        limpet.dockerfile("FROM base\nRUN head -c 100000 /dev/urandom > /x\n")
        with counting(registry.host) as (host, moved):
            here = own_base.replace(registry.host, host)
            built(limpet("--cache", f"--destination={host}/{name}:1", here))
            # The layer, and the index of the base that it lies on.
            assert len([tag for tag in tags(registry.host, f"{name}/cache") if len(tag) == 64]) == 2
            assert moved("up") < 150_000

    def test_another_registry_gets_copies(
        self, limpet: Builder, registry: RegistryServer, shop: Front, name: str, own_base: str
    ) -> None:
        limpet.dockerfile("FROM base\nRUN echo > /x\n")
        built(limpet("--cache", f"--destination={registry.host}/{name}:1", own_base))
        with docker_registry(limpet.directory / "other") as other:
            cache = f"--cache-repo={registry.host}/{name}/cache"
            log = built(limpet("--cache", cache, f"--destination={other.host}/{name}:1", own_base))
            assert misses(log) == []
            pulled = ["skopeo", "copy", "-q", "--src-tls-verify=false", f"docker://{other.host}/{name}:1"]
            subprocess.run([*pulled, f"dir:{limpet.directory / 'image'}"], check=True)

    def test_later_steps_run_on_cached_layers(
        self, limpet: Builder, registry: RegistryServer, name: str, own_base: str
    ) -> None:
        limpet.dockerfile("FROM base\nRUN echo text > /x\n")
        arguments = ("--cache", f"--destination={registry.host}/{name}:1", own_base)
        built(limpet(*arguments))
        limpet.dockerfile("FROM base\nRUN echo text > /x\nRUN grep text /x\n")
        log = built(limpet(*arguments))
        assert hits(log) == ["RUN echo text > /x"]


@contextlib.contextmanager
def counting(backend: str) -> Iterator[tuple[str, Callable[..., int]]]:
    """A host before `backend`, and how many bytes went through it so far: "up" to it, "down" from it, or all."""
    totals = {"up": 0, "down": 0}
    address, _, port = backend.rpartition(":")
    listener = socket.create_server(("127.0.0.1", 0))

    def pump(source: socket.socket, target: socket.socket, way: str) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                totals[way] += len(data)
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                server = socket.create_connection((address, int(port)))
                threading.Thread(target=pump, args=(client, server, "up"), daemon=True).start()
                threading.Thread(target=pump, args=(server, client, "down"), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}", lambda way="": totals[way] if way else sum(totals.values())
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


class TestBadRegistries:
    """What the cache itself does with them is tested in tests/cache; here, that builds go on."""

    def test_one_that_refuses(self, limpet: Builder, registry: RegistryServer, shop: Front, name: str) -> None:
        shop.fault(Answer(500), path=f"/v2/{name}", times=1000)
        limpet.dockerfile("FROM base\nRUN echo 1 > /1\nRUN echo 2 > /2\n")
        log = built(limpet("--cache", f"--cache-repo={shop.host}/{name}", f"--destination={registry.host}/{name}:1"))
        assert len(warnings(log)) == 1
        assert f"{shop.host}/{name}" in warnings(log)[0]

    def test_layers_that_are_damaged_are_made_again(
        self, limpet: Builder, registry: RegistryServer, shop: Front, name: str
    ) -> None:
        """Found out in the middle of the build, when a step needs their files."""
        arguments = ("--cache", f"--cache-repo={shop.host}/{name}", f"--destination={registry.host}/{name}:1")
        limpet.dockerfile("FROM base\nRUN echo 1 > /1\n")
        built(limpet(*arguments))
        limpet.dockerfile("FROM base\nRUN echo 1 > /1\nRUN grep 1 /1\n")
        shop.fault(Corrupt(), "GET", f"/v2/{name}/blobs/", times=1000)
        log = built(limpet(*arguments))
        assert hits(log) == ["RUN echo 1 > /1"]
        assert len(warnings(log)) == 1
        assert "building again, without what is cached" in warnings(log)[0]
        shop.faults.clear()
        assert misses(built(limpet(*arguments))) == []

    def test_one_that_holds_back_a_cache_mount(
        self, limpet: Builder, registry: RegistryServer, shop: Front, name: str
    ) -> None:
        mounts = ("--cache-mounts=registry", f"--cache-repo={shop.host}/{name}", "--no-push")
        limpet.dockerfile("FROM base\nRUN --mount=type=cache,target=/c head -c 9000 /bin/busybox > /c/x\n")
        built(limpet(*mounts))
        end = threading.Event()
        shop.fault(Hold(end, after=10), "GET", f"/v2/{name}/blobs/", times=1000)
        shop.seen.clear()
        log = built(limpet(*mounts))
        end.set()
        assert shop.count("GET", "/blobs/") == 1
        assert len(warnings(log)) == 1 and "no answer in time" in warnings(log)[0], log

    def test_layers_that_are_damaged_do_not_get_into_the_image(
        self, limpet: Builder, registry: RegistryServer, shop: Front, name: str, tmp_path: Path
    ) -> None:
        """Found out when they are copied to another registry."""
        limpet.dockerfile("FROM base\nRUN echo 1 > /1\n")
        cache = ("--cache", f"--cache-repo={shop.host}/{name}")
        built(limpet(*cache, "--no-push"))
        shop.fault(Corrupt(), "GET", f"/v2/{name}/blobs/", times=1000)
        image = f"{registry.host}/{name}-image:1"
        log = built(limpet(*cache, f"--destination={image}"))
        assert hits(log) == ["RUN echo 1 > /1"]
        assert "building again, without what is cached" in warnings(log)[0]
        subprocess.run(
            ["skopeo", "copy", "-q", "--src-tls-verify=false", f"docker://{image}", f"dir:{tmp_path / 'image'}"],
            check=True,
        )

    def test_one_that_cannot_be_written_is_read(
        self, limpet: Builder, registry: RegistryServer, shop: Front, name: str
    ) -> None:
        arguments = ("--cache", f"--cache-repo={shop.host}/{name}", f"--destination={registry.host}/{name}:1")
        limpet.dockerfile("FROM base\nRUN echo 1 > /1\n")
        built(limpet(*arguments))
        limpet.dockerfile("FROM base\nRUN echo 1 > /1\nRUN echo 2 > /2\nRUN echo 3 > /3\n")
        for method in ("POST", "PUT", "PATCH"):
            shop.fault(Answer(403), method, f"/v2/{name}", times=1000)
        log = built(limpet(*arguments))
        assert hits(log) == ["RUN echo 1 > /1"]
        assert len(warnings(log)) == 1
