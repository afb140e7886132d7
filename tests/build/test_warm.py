"""`limpet warm`: afterwards builds start without pulling or unpacking anything."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.build import busybox
from tests.build.program import CHECKOUT, Builder
from tests.build.test_store import Shop, push, shop_of_its_own
from tests.servers import web
from tests.store.consistency import assert_consistent


@pytest.fixture
def shop(limpet: Builder, base: Path, tmp_path: Path) -> Iterator[Shop]:
    with shop_of_its_own(limpet, base, tmp_path) as shop:
        yield shop


def warm(shop: Shop, *arguments: str, code: int = 0) -> str:
    """The log of `/kaniko/warmer` with these arguments."""
    command = [sys.executable, "-m", "builder", "warmer", f"--cache-dir={shop.store}", *arguments]
    command.append(f"--work-dir={shop.limpet.work}")
    done = subprocess.run(command, cwd=CHECKOUT, env=shop.limpet.environment(), capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert not shop.limpet.work.exists() or os.listdir(shop.limpet.work) == []
    return done.stderr


def test_a_build_after_it_needs_no_registry(shop: Shop) -> None:
    text = "FROM {base} AS run\nRUN echo made > /made\nFROM {base}\nCOPY --chown=user --from=run /made /\n"
    reference, _ = shop.build(f"--cache-dir={shop.limpet.directory / 'another'}", text=text)
    log = warm(shop, f"--image={shop.base}:1")
    assert f"Stored {shop.base}:1 in {shop.store} (1 layer, unpacked)" in log
    assert_consistent(shop.store)
    before = shop.entries()
    assert {path.partition("/")[0].partition("-")[0] for path in before} == {"images", "blobs", "layers", "indexes"}
    shop.registry.stop()
    digest, _ = shop.build(text=text)
    assert digest == reference
    assert shop.entries() == before


def test_the_images_of_a_dockerfile(shop: Shop, tmp_path: Path) -> None:
    for name in ("tool:1", "never:1", "other:2"):
        push(shop.limpet.base, shop.registry, name)
    host = shop.registry.host
    dockerfile = tmp_path / "Dockerfile.warm"
    dockerfile.write_text(
        f"ARG NAME=other:1\nFROM {host}/never:1 AS unused\nFROM {host}/${{NAME}} AS build\n"
        f"COPY --from={host}/tool:1 /bin/busybox /\nFROM scratch\nCOPY --from=build /busybox /\nFROM build\n"
    )
    log = warm(shop, f"--dockerfile={dockerfile}", "--build-arg=NAME=other:2")
    for name in ("never:1", "other:2", "tool:1"):
        assert f"Stored {host}/{name}" in log
    assert log.count("Stored ") == 3
    if web.missing():
        pytest.skip(web.missing())
    with web.web_server(tmp_path / "web") as server:
        shutil.copy(dockerfile, server.root)
        log = warm(shop, "-d", f"http://{server.host}/Dockerfile.warm", "--build-arg=NAME=other:2")
    assert log.count("Stored ") == 3


def test_again(shop: Shop, tmp_path: Path) -> None:
    warm(shop, "-i", f"{shop.base}:1")
    first = shop.entries()
    pulled = len(shop.registry.requests("GET"))
    warm(shop, "-i", f"{shop.base}:1")
    assert len(shop.registry.requests("GET")) == pulled
    # What the name means now is found out, whatever the age of what is there.
    busybox.write_layout(tmp_path / "newer", busybox.tar(("new", b"new")))
    push(tmp_path / "newer", shop.registry, "base:1")
    warm(shop, "-i", f"{shop.base}:1")
    assert shop.entries() > first

    def times() -> dict[str, int]:
        return {path: os.stat(shop.store / path / "entry.json").st_mtime_ns for path in shop.entries()}

    before = times()
    warm(shop, "-i", f"{shop.base}:1", "--force")
    again = times()
    assert again.keys() == before.keys()
    assert sum(again[path] != before[path] for path in before) == 7  # of two layers: blob, index, tree; the image
    assert_consistent(shop.store)


def test_a_dockerfile_that_needs_no_image(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY a /\n")
    assert "nothing is stored" in warm(shop, f"--dockerfile={tmp_path / 'Dockerfile'}")
    assert not shop.store.exists()


def test_what_fails(shop: Shop) -> None:
    assert "you must select at least one image to cache" in warm(shop, code=1)
    log = warm(shop, f"--image={shop.base}:1", f"--image={shop.base}:no")
    assert f"Stored {shop.base}:1" in log
    assert f"{shop.base}:no is not stored: " in log
    assert "is not stored" in warm(shop, f"--image={shop.base}:no", code=1)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts are made by root only")
@pytest.mark.root
def test_a_store_that_is_full(shop: Shop) -> None:
    shop.store.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1500k", "none", str(shop.store)], check=True)
    try:
        assert "No space left" in warm(shop, f"--image={shop.base}:1", code=1)
    finally:
        subprocess.run(["umount", str(shop.store)], check=True)


def test_pruned_by_size(shop: Shop, tmp_path: Path) -> None:
    busybox.write_layout(tmp_path / "other", busybox.tar(("other", bytes(4 << 20))))
    push(tmp_path / "other", shop.registry, "other:1")
    warm(shop, f"--image={shop.registry.host}/other:1")
    warm(shop, f"--image={shop.base}:1", "--cache-dir-size=4Mi")
    left = sum(path.lstat().st_blocks * 512 for path in shop.store.glob("*/*/**/*") if path.is_file())
    assert left < 5 << 20
    before = len(shop.registry.requests("GET", "/blobs/"))
    shop.build(text="FROM {base}\nRUN true\n")
    assert len(shop.registry.requests("GET", "/blobs/")) == before  # the last that was stored is the last to go


def test_files_of_images_come_from_what_is_unpacked(shop: Shop, tmp_path: Path) -> None:
    """Nothing is read again, and every file is the one that the layers mean: hardlinks, replaced files, symlinks."""
    twice = busybox.tar(("d/f", b"one"), ("l", "d"), links=(("h", "d/f"),)) + busybox.tar(("l/f", b"two"))
    tool = tmp_path / "tool"
    busybox.write_layout(
        tool,
        busybox.tar(("a/x", b"x1"), ("a/y", "/etc/hostname"), ("s", "a"), ("s2", "/a"), links=(("a/hard", "a/x"),)),
        busybox.tar(("a/x", b"x2"), ("etc/passwd", b"tool:x:7:7::/:/bin/sh\n")),
        _joined(twice),
    )
    push(tool, shop.registry, "tool:1")
    image = f"{shop.registry.host}/tool:1"
    copies = f"COPY --from={image} / /all/\nCOPY --from={image} --chown=user /s2/x /s/hard /x/\n"
    text = "FROM {base}\n" + copies + "RUN true\n"
    reference, _ = shop.build(f"--cache-dir={shop.limpet.directory / 'another'}", text=text)
    warm(shop, f"--image={shop.base}:1", f"--image={image}")
    shop.registry.stop()
    # Without the packed layers nothing could be read but what is unpacked, and that layer with a file written twice.
    for data in shop.store.glob("blobs/*/data"):
        if data.stat().st_size < 1000:
            continue
        shutil.rmtree(data.parent)
    assert shop.build(text=text)[0] == reference


def _joined(tars: bytes) -> bytes:
    """The archive of all members of `tars`, archives one after another."""
    source, buffer = io.BytesIO(tars), io.BytesIO()
    with (
        tarfile.open(fileobj=buffer, mode="w") as target,
        tarfile.open(fileobj=source, mode="r", ignore_zeros=True) as archive,
    ):
        for member in archive:
            target.addfile(member, archive.extractfile(member) if member.isreg() else None)
    return buffer.getvalue()
