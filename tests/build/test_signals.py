"""Ctrl-C and SIGTERM while a command runs: an exit code, and nothing left."""

from __future__ import annotations

import os
import signal
import subprocess

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
