"""Ctrl-C and SIGTERM while a command runs: an exit code, and nothing left."""

from __future__ import annotations

import io
import json
import os
import random
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from builder.oci import layout, media_types
from builder.oci.blobs import MemoryBlob
from builder.oci.descriptor import Descriptor, sha256
from builder.oci.image import Layer
from tests.build.program import CHECKOUT, Builder, left_behind, tags
from tests.images import image
from tests.servers.registry import RegistryServer
from tests.servers.stalling import StallingServer, stalling_server
from tests.store.consistency import assert_consistent


def _started(process: subprocess.Popen[str], *lines: str) -> str:
    """The log until each of `lines` has come."""
    assert process.stderr is not None
    log, awaited = "", set(lines)
    for line in process.stderr:
        log += line
        awaited = {text for text in awaited if not line.endswith(f"{text}\n")}
        if not awaited:
            return log
    raise AssertionError(f"the build ended before it said {awaited}:\n{log}")


# The commands outlast every patience: that the build ends shows that the signal ended it.
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_build(limpet: Builder, registry: RegistryServer, number: signal.Signals, code: int) -> None:
    limpet.dockerfile("FROM base\nRUN echo one > /one\nRUN sleep 3600 & echo is running; sleep 3600\n")
    process = limpet.start(f"--destination={registry.host}/signals:1")
    log = _started(process, "] is running")
    # The search finds something as long as there is something.
    assert os.listdir(limpet.work) != []
    assert left_behind(process.pid, limpet.work) != []
    process.send_signal(number)
    _, rest = process.communicate()
    assert process.returncode == code, log + rest
    assert "Traceback" not in rest
    assert f"ended by signal {number.value}" in rest
    limpet.assert_nothing_left(process)
    assert tags(registry.host, "signals") == []


def test_ctrl_c_at_a_terminal(limpet: Builder) -> None:
    """All processes of the foreground group get the signal; here with stages side by side."""
    stages = "".join(f"FROM base AS s{n}\nRUN echo {n} is running; sleep 3600\n" for n in range(3))
    copies = "".join(f"COPY --from=s{n} /etc /{n}\n" for n in range(3))
    limpet.dockerfile(f"{stages}FROM scratch\n{copies}")
    process = limpet.start("--no-push")
    log = _started(process, "] 0 is running", "] 1 is running")
    os.killpg(process.pid, signal.SIGINT)
    _, rest = process.communicate()
    assert process.returncode == 130, log + rest
    assert "Traceback" not in rest
    limpet.assert_nothing_left(process)


def test_a_command_that_ignores_signals(limpet: Builder) -> None:
    limpet.dockerfile("FROM base\nRUN trap '' INT TERM HUP; echo is running; while :; do sleep 3600; done\n")
    process = limpet.start("--no-push")
    _started(process, "] is running")
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert process.returncode == 143
    limpet.assert_nothing_left(process)


def test_while_another_build_has_the_cache(limpet: Builder, tmp_path: Path) -> None:
    """Waiting for a lock is ended by a signal as well."""
    caches = tmp_path / "caches"
    caches.mkdir()
    mount = "RUN --mount=type=cache,target=/cache,sharing=locked"
    limpet.dockerfile(f"FROM base\n{mount} echo is running; sleep 3600\n")
    owner = limpet.start("--no-push", f"--cache-dir={caches}")
    _started(owner, "] is running")
    other = replace(limpet, directory=tmp_path / "other", work=tmp_path / "other/work")
    other.context.mkdir(parents=True)
    other.dockerfile(f"FROM base\n{mount} echo never\n")
    waiting = other.start("--no-push", f"--cache-dir={caches}")
    _started(waiting, f"{mount} echo never")
    waiting.send_signal(signal.SIGTERM)
    _, rest = waiting.communicate()
    assert waiting.returncode == 143, rest
    other.assert_nothing_left(waiting)
    owner.send_signal(signal.SIGTERM)
    owner.communicate()
    limpet.assert_nothing_left(owner)


def _end_when_stalled(limpet: Builder, server: StallingServer, process: subprocess.Popen[str]) -> None:
    server.stalled.wait()
    process.send_signal(signal.SIGTERM)
    _, rest = process.communicate()
    assert process.returncode == 143, rest
    assert "Traceback" not in rest
    limpet.assert_nothing_left(process)
    transfers = [request for request in server.requests if request.startswith(("GET", "PUT")) and request != "GET /v2/"]
    assert len(set(transfers)) == len(transfers)  # nobody tried again


def _incompressible(limpet: Builder, name: str) -> bytes:
    """A tar of a file of 32 MiB, more than any buffer between two programs holds."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member = tarfile.TarInfo(name)
        member.size = 32 << 20
        archive.addfile(member, io.BytesIO(random.Random(1).randbytes(member.size)))
    return buffer.getvalue()


@contextmanager
def _stalling_image(limpet: Builder) -> Iterator[StallingServer]:
    """A registry with image stalls:1, whose layer never comes to its end."""
    data = _incompressible(limpet, "etc/large")
    layer = {"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": sha256(data), "size": len(data)}
    config = json.dumps(
        {"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]}}
    ).encode()
    described = {
        "mediaType": "application/vnd.oci.image.config.v1+json",
        "digest": sha256(config),
        "size": len(config),
    }
    media_type = "application/vnd.oci.image.manifest.v1+json"
    manifest = {"schemaVersion": 2, "mediaType": media_type, "config": described, "layers": [layer]}
    blobs = "/v2/stalls/blobs/"
    answers = {
        "/v2/stalls/manifests/1": json.dumps(manifest).encode(),
        f"{blobs}{described['digest']}": config,
        f"{blobs}{layer['digest']}": data,
    }
    with stalling_server(answers, f"{blobs}{layer['digest']}") as server:
        yield server


@pytest.mark.parametrize("step", ["RUN true", "COPY Dockerfile /etc/"])
def test_while_a_base_layer_comes(limpet: Builder, step: str) -> None:
    """RUN unpacks the base, COPY reads it into an index: it is the registry that does not go on."""
    with _stalling_image(limpet) as server:
        limpet.dockerfile(f"FROM {server.host}/stalls:1\n{step}\n")
        process = limpet.start("--no-push", "--insecure-pull", "--custom-platform=linux/amd64")
        _end_when_stalled(limpet, server, process)


def test_while_the_context_comes(limpet: Builder) -> None:
    with stalling_server({"/context.tar": _incompressible(limpet, "large")}, "/context.tar") as server:
        address = f"http://{server.host}/context.tar"
        _end_when_stalled(limpet, server, limpet.start("--no-push", "--context-allow-http", f"--context={address}"))


def test_while_a_layer_goes_up(limpet: Builder) -> None:
    limpet.dockerfile("FROM scratch\nCOPY large /\n", large=random.Random(1).randbytes(32 << 20))
    with stalling_server({}, "upload") as server:
        destination = f"--destination={server.host}/stalls:1"
        _end_when_stalled(
            limpet, server, limpet.start(destination, "--insecure", "--skip-push-permission-check", "--isolation=none")
        )


def test_while_warm_stores_a_layer(limpet: Builder, tmp_path: Path) -> None:
    with _stalling_image(limpet) as server:
        flags = (f"--image={server.host}/stalls:1", "--insecure-pull", "--customPlatform=linux/amd64")
        process = _command(limpet, "warm", *flags, f"--work-dir={limpet.work}", f"--cache-dir={tmp_path}/store")
        _end_when_stalled(limpet, server, process)
        assert_consistent(tmp_path / "store")


def test_while_push_sends_a_layer(limpet: Builder, tmp_path: Path) -> None:
    data = _incompressible(limpet, "large")
    layer = Layer(Descriptor.of(media_types.OCI_LAYER, data), sha256(data), MemoryBlob(data))
    layout.write(tmp_path / "layout", image(layer))
    with stalling_server({}, "upload") as server:
        destination = f"--destination={server.host}/stalls:1"
        _end_when_stalled(limpet, server, _command(limpet, "push", str(tmp_path / "layout"), destination, "--insecure"))


def _command(limpet: Builder, *words: str) -> subprocess.Popen[str]:
    """Another command than build, under way."""
    limpet.work.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-m", "builder", *words],
        cwd=CHECKOUT,
        env=limpet.environment({"TMPDIR": str(limpet.work)}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.parametrize("level", ["1", "9"])
def test_while_a_layer_is_written(limpet: Builder, level: str) -> None:
    """Its file has more bytes than anything can compress in an hour, and none on the disk."""
    limpet.dockerfile("FROM base\nRUN truncate -s 7168G /huge\nRUN echo is running; sleep 3600\n")
    process = limpet.start("--no-push", f"--compression-level={level}")
    _started(process, "] is running")
    process.send_signal(signal.SIGTERM)
    _, rest = process.communicate()
    assert process.returncode == 143, rest
    limpet.assert_nothing_left(process)


def test_a_second_signal_ends_everything_at_once(limpet: Builder) -> None:
    """The command would get a grace period; nobody who asks again and again has the patience."""
    limpet.dockerfile("FROM base\nRUN trap '' INT TERM HUP; echo is running; while :; do sleep 3600; done\n")
    process = limpet.start("--no-push")
    _started(process, "] is running")
    while process.poll() is None:
        process.send_signal(signal.SIGTERM)
    _, rest = process.communicate()
    assert process.returncode == 143, rest
    assert "Traceback" not in rest
    while left_behind(process.pid, limpet.work):
        pass  # who was killed needs a moment to be gone
