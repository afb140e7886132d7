"""Base images resolve while the context is still on its way."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from context_sources import FetchSettings
from context_sources.archive import unpack
from tests.context_sources.conftest import Fetcher, add, add_file, archive
from tests.servers import registry as registry_server
from tests.servers.front import Front, front
from tests.servers.registry import docker_registry

PATIENCE = 60.0


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Front]:
    if reason := registry_server.missing():
        pytest.skip(reason)
    with docker_registry(tmp_path / "registry") as server, front(server.host) as site:
        yield site


def limpet(*argv: str) -> list[str]:
    return [sys.executable, "-m", "builder", *argv]


def two_parts(data: bytes) -> tuple[bytes, bytes]:
    """An archive, cut behind its first member."""
    return data[:4096], data[4096:]


def context(base: str) -> bytes:
    def write(tar: tarfile.TarFile) -> None:
        add_file(tar, "./Dockerfile", f"FROM {base}\nCOPY big /\n".encode())
        add_file(tar, "./big", bytes(4 << 20))

    return archive(write)


def wait_for(registry: Front, path: str) -> bool:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if registry.count("GET", path) + registry.count("HEAD", path):
            return True
        time.sleep(0.01)
    return False


def test_the_registry_is_asked_before_the_context_is_complete(registry: Front, tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "Dockerfile").write_text("FROM scratch\nLABEL a=b\n")
    push = limpet(f"--context={tmp_path / 'base'}", f"--destination={registry.host}/base:1")
    subprocess.run(push, env=environment, cwd=tmp_path, check=True, capture_output=True)
    registry.seen.clear()
    first, rest = two_parts(context(f"{registry.host}/base:1"))
    build = limpet("--context=tar://-", "--no-push", f"--metadata-file={tmp_path / 'metadata'}")
    with subprocess.Popen(
        build, env=environment, cwd=tmp_path, stdin=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        process.stdin.write(first)
        process.stdin.flush()
        asked = wait_for(registry, "/base/manifests/")
        _, said = process.communicate(rest)
    assert asked
    assert process.returncode == 0, said
    assert f"{registry.host}/base" in (tmp_path / "metadata").read_text()


def test_a_dockerfile_of_this_machine_is_looked_at_at_once(registry: Front, tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    (tmp_path / "Dockerfile").write_text(f"FROM {registry.host}/absent:1\nCOPY big /\n")
    with subprocess.Popen(
        limpet("--context=tar://-", "--no-push"),
        env=environment,
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        asked = wait_for(registry, "/absent/manifests/")
        _, said = process.communicate(context("scratch"))
    assert asked
    assert process.returncode != 0
    assert b"absent:1" in said


def test_which_file_is_told(tmp_path: Path, fetcher: Fetcher) -> None:
    def write(tar: tarfile.TarFile) -> None:
        add(tar, "./", tarfile.DIRTYPE)
        add_file(tar, "./Dockerfile", b"FROM other\n")
        add_file(tar, "app/build/Dockerfile", b"FROM mine\n")
        add(tar, "link", tarfile.SYMTYPE, "/etc/passwd")

    path = tmp_path / "a.tar"
    path.write_bytes(archive(write))
    told: list[str] = []

    def seen(path: Path) -> None:
        told.append(str(path.relative_to(fetcher.into)))

    for dockerfile, sub_path, expected in (
        ("Dockerfile", "", ["Dockerfile"]),
        ("build/Dockerfile", "app", ["app/build/Dockerfile"]),
        ("/somewhere/Dockerfile", "", []),
        ("https://example.com/Dockerfile", "", []),
        ("link", "", []),
    ):
        told.clear()
        fetcher(f"tar://{path}", dockerfile=dockerfile, sub_path=sub_path, dockerfile_seen=seen)
        assert told == expected


def test_it_is_told_while_bytes_are_missing(tmp_path: Path) -> None:
    seen = threading.Event()
    first, rest = two_parts(context("scratch"))

    def chunks() -> Iterator[bytes]:
        yield first
        assert seen.wait(PATIENCE)
        yield rest

    unpack(chunks(), tmp_path, FetchSettings(dockerfile_seen=lambda path: seen.set()), name="archive")
    assert (tmp_path / "Dockerfile").read_bytes().startswith(b"FROM scratch\n")
