"""Ctrl-C and SIGTERM while a command runs: an exit code, and nothing left."""

from __future__ import annotations

import os
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from tests.build.program import Builder, left_behind, tags
from tests.servers.registry import RegistryServer


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
