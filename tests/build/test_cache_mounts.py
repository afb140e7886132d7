"""`--cache-mounts=registry`: cache mounts of builds that start with an empty disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.build.program import Builder
from tests.servers.registry import RegistryServer, free_port

FIRST = """FROM base
RUN --mount=type=cache,id=things,target=/c mkdir /c/d && echo one > /c/d/f && ln /c/d/f /c/hard && ln -s d /c/soft \
    && chmod 640 /c/d/f && chown user /c/d/f && chmod 1770 /c
"""
SECOND = """FROM base
RUN --mount=type=cache,id=things,target=/c stat -c '%a %u %h %n' /c /c/d /c/d/f && readlink /c/soft && cat /c/hard
"""
SEEN = ["1770 0", "755 0", "640 1000 2 /c/d/f", "d", "one"]


def _arguments(where: str, *more: str) -> list[str]:
    return ["--no-push", "--cache-mounts=registry", f"--cache-repo={where}", *more]


@pytest.fixture(params=["registry", "directory"])
def where(request: pytest.FixtureRequest, registry: RegistryServer, tmp_path: Path) -> str:
    name = f"mounts-{tmp_path.name}".lower().replace("_", "-")
    return f"{registry.host}/{name}" if request.param == "registry" else f"oci:{tmp_path / 'layers'}"


@pytest.mark.skipif(os.geteuid() != 0, reason="owners are real ones for root only")
@pytest.mark.root
def test_the_next_build_finds_them(limpet: Builder, where: str) -> None:
    limpet.dockerfile(FIRST)
    done = limpet(*_arguments(where))
    assert done.returncode == 0, done.stderr
    assert f"bytes to {where}" in done.stderr
    limpet.dockerfile(SECOND)
    done = limpet(*_arguments(where))
    assert done.returncode == 0, done.stderr
    for text in SEEN:
        assert f"] {text}" in done.stderr, (text, done.stderr)
    # Nothing changed, so nothing is sent.
    assert f"bytes from {where}" in done.stderr
    assert f"bytes to {where}" not in done.stderr
    # Another id, and another beginning, are another cache.
    limpet.dockerfile("FROM base\nRUN --mount=type=cache,id=others,target=/c test ! -e /c/d\n")
    assert limpet(*_arguments(where, "--no-push-cache")).returncode == 0
    # Too old is as if it was not there.
    limpet.dockerfile("FROM base\nRUN --mount=type=cache,id=things,target=/c test ! -e /c/d\n")
    done = limpet(*_arguments(where, "--cache-ttl=1ns", "--no-push-cache"))
    assert done.returncode == 0, done.stderr


def test_what_is_here_wins(limpet: Builder, registry: RegistryServer, tmp_path: Path) -> None:
    where = f"{registry.host}/mounts-here"
    text = "FROM base\nRUN --mount=type=cache,target=/c test ! -e /c/n || cat /c/n; echo {0} > /c/n\n"
    for number, store in (("one", "a"), ("two", "b"), ("three", "a")):
        limpet.dockerfile(text.format(number))
        done = limpet(*_arguments(where, f"--cache-dir={tmp_path / store}"))
        assert done.returncode == 0, done.stderr
        if number != "one":
            assert "] one" in done.stderr  # "b" got it from the registry, "a" had its own
    assert "bytes from" not in done.stderr


def test_a_failed_build_sends_nothing(limpet: Builder, registry: RegistryServer) -> None:
    where = f"{registry.host}/mounts-failed"
    limpet.dockerfile("FROM base\nRUN --mount=type=cache,target=/c touch /c/half; exit 3\n")
    limpet.fails(*_arguments(where), code=3)
    assert registry.requests("P", "/mounts-failed/") == []


def test_a_cache_that_is_away_is_done_without(limpet: Builder) -> None:
    limpet.dockerfile("FROM base\nRUN --mount=type=cache,target=/c touch /c/made /made\n")
    done = limpet(*_arguments(f"127.0.0.1:{free_port()}/mounts"))
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("cannot reach") == 1
