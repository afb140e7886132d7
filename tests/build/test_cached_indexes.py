"""Layers are not read to look something up in them when the cache has their indexes."""

from __future__ import annotations

import os
import re
import subprocess
import threading
import time
from pathlib import Path

import pytest

from builder.cache.directory import DirectoryCache
from builder.cache.indexes import CachedIndexes, key_of
from builder.events import Silent
from builder.oci import layout
from builder.oci.platform import Platform
from builder.rootfs.entry import Change, Entry, FileType
from tests.build.program import Builder
from tests.servers.front import Answer, Corrupt, Hold, front
from tests.servers.registry import RegistryServer


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A repository that only this test uses."""
    return re.sub("[^a-z0-9]+", "-", request.node.name.lower()).strip("-")


@pytest.fixture
def own_base(registry: RegistryServer, base: Path, name: str) -> str:
    """FROM base is in a repository that only this test uses."""
    reference = f"{registry.host}/{name}-base:1"
    # Compressed by skopeo, the layers would have other digests.
    copy = ["skopeo", "copy", "-q", "--preserve-digests", "--dest-tls-verify=false"]
    subprocess.run([*copy, f"oci:{base}", f"docker://{reference}"], check=True)
    return f"--build-context=base=docker-image://{reference}"


def layer_reads(requests: list[str], name: str, base: Path) -> int:
    """How often a layer of the base was fetched."""
    image = layout.read(layout.Location(base), Platform.host()).image
    digests = [layer.descriptor.digest for layer in image.layers]
    return sum(
        line.startswith(f"GET /v2/{name}-base/blobs/") and any(digest in line for digest in digests)
        for line in requests
    )


def built(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.parametrize(
    ("first", "isolation"), [("RUN echo text > /x", "auto"), ("RUN echo text > /x", "chroot"), ("COPY a /x", "none")]
)
def test_a_copy_onto_a_known_base_moves_no_byte_of_it(
    limpet: Builder, registry: RegistryServer, base: Path, name: str, own_base: str, first: str, isolation: str
) -> None:
    """Whether the base was unpacked when its index was made, or only read."""
    if isolation == "chroot" and os.geteuid() != 0:
        pytest.skip("chroot is for root only")
    destination = f"--destination={registry.host}/{name}:1"
    arguments = ("--cache", "--reproducible", f"--isolation={isolation}", destination, own_base)
    text = f"FROM base\n{first}\nCOPY --chown=root:root a /bin/a\n"
    limpet.dockerfile(text, a="old")
    built(limpet(*arguments))
    assert layer_reads(registry.requests(), name, base) == 1
    limpet.dockerfile(text, a="new")
    seen = len(registry.requests())
    log = built(limpet(*arguments))
    assert layer_reads(registry.requests()[seen:], name, base) == 0
    plain = built(limpet("--reproducible", f"--destination={registry.host}/{name}-plain:1", own_base))
    if first.startswith("COPY"):  # what RUN makes has a time
        pushed = [re.search(r"Pushed \S+@(sha256:\w+)", text) for text in (log, plain)]
        assert pushed[0] and pushed[1] and pushed[0][1] == pushed[1][1]


def test_two_stages_of_copies_read_their_base_once(
    limpet: Builder, registry: RegistryServer, base: Path, name: str, own_base: str
) -> None:
    limpet.dockerfile(
        "FROM base AS one\nCOPY a /bin/a\nFROM base\nCOPY --from=one /bin/a /bin/b\nCOPY --chown=root a /bin/c\n",
        a="text",
    )
    seen = len(registry.requests())
    built(limpet(f"--destination={registry.host}/{name}:1", own_base))
    assert layer_reads(registry.requests()[seen:], name, base) == 1


def test_an_index_of_something_else_is_found_out(limpet: Builder, base: Path, tmp_path: Path) -> None:
    (layer,) = layout.read(layout.Location(base), Platform.host()).image.layers
    cache = DirectoryCache(tmp_path / "cache", Silent())
    (tmp_path / "indexes").mkdir()
    indexes = CachedIndexes(tmp_path / "indexes", Silent())
    indexes.begin(cache, write=True, meanwhile=False)
    wrong: list[Change] = [Entry("bin", FileType.DIRECTORY, 0o755), Entry("bin/busybox", FileType.FILE, size=3)]
    indexes.put(layer, wrong)
    indexes.finish()
    assert cache.get(key_of(layer)) is not None
    limpet.dockerfile("FROM scratch\nCOPY --from=base /bin/busybox /b\n")
    image = tmp_path / "image"
    log = built(limpet("--cache", f"--cache-repo={cache}", "--no-push", f"--oci-layout-path={image}"))
    assert "building again, without what is cached" in log
    (copied,) = layout.read(layout.Location(image), Platform.host()).image.layers
    assert copied.descriptor.size > 1000


def test_a_base_is_looked_into_while_its_first_copy_waits(
    limpet: Builder, registry: RegistryServer, base: Path, name: str, own_base: str, tmp_path: Path
) -> None:
    limpet.dockerfile(
        "FROM other AS one\nRUN --mount=type=cache,target=/gate,id=gate echo is running; "
        "for i in $(seq 600); do test -e /gate/open && exit 3; sleep 0.1; done\n"
        "FROM base\nCOPY --from=one /bin/busybox /other\n"
    )
    store = tmp_path / "store"
    other = f"--build-context=other=oci-layout://{base}"
    process = limpet.start("--no-push", f"--cache-dir={store}", own_base, other)
    while not layer_reads(registry.requests(), name, base) or not list((store / "mounts").glob("*/0")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    (next((store / "mounts").glob("*/0")) / "open").touch()
    _, log = process.communicate()
    assert process.returncode == 3, log


@pytest.mark.parametrize("trouble", [Corrupt(), Answer(503), Answer(404)], ids=["damaged", "unavailable", "gone"])
def test_indexes_that_cannot_be_had_are_done_without(
    limpet: Builder, registry: RegistryServer, base: Path, name: str, own_base: str, trouble: Answer | Corrupt
) -> None:
    with front(registry.host) as shop:
        cache = ("--cache", f"--cache-repo={shop.host}/{name}/cache")
        arguments = (*cache, f"--destination={registry.host}/{name}:1", own_base)
        limpet.dockerfile("FROM base\nCOPY a /bin/a\n", a="old")
        built(limpet(*arguments))
        shop.fault(trouble, "GET", f"/v2/{name}/cache/blobs/", times=1000)
        limpet.dockerfile("FROM base\nCOPY a /bin/a\n", a="new")
        seen = len(registry.requests())
        log = built(limpet(*arguments))
        assert layer_reads(registry.requests()[seen:], name, base) == 1
        told = [line for line in log.splitlines() if line.startswith("WARN")]
        assert len(told) == 1 and "is not used" in told[0], log


def test_a_cache_that_holds_back_an_index_is_left_alone(
    limpet: Builder, registry: RegistryServer, base: Path, name: str, own_base: str
) -> None:
    """After the first blob that does not come, no other is asked for."""
    text = "FROM base AS one\nCOPY a /bin/a\nRUN true\nFROM one\nRUN echo {} > /x\n"
    end = threading.Event()
    with front(registry.host) as shop:
        arguments = ("--cache", f"--cache-repo={shop.host}/{name}/cache", f"--destination={registry.host}/{name}:1")
        limpet.dockerfile(text.format(1), a="old")
        built(limpet(*arguments, own_base))
        shop.fault(Hold(end, after=10), "GET", f"/v2/{name}/cache/blobs/", times=1000)
        limpet.dockerfile(text.format(2), a="new")
        shop.seen.clear()
        log = built(limpet(*arguments, own_base))
        end.set()
        assert shop.count("GET", "/blobs/") == 1
        told = [line for line in log.splitlines() if line.startswith("WARN")]
        assert len(told) == 1 and "is not used" in told[0] and "no answer in time" in told[0], log
