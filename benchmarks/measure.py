"""Run one command and measure it: wall time, CPU time, peak memory of its whole session."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Measurement:
    """`wall` and `cpu` in seconds, `memory` in bytes: the largest sum of resident sets at one moment."""

    wall: float
    cpu: float
    memory: int


class Failed(Exception):
    """The command exited non-zero; the message has the end of what it said."""


def measure(commands: Sequence[Sequence[str]], *, cwd: Path, env: Mapping[str, str] | None = None) -> Measurement:
    """Run `commands` one after the other as one measured whole. Raises Failed."""
    wall, cpu, memory = 0.0, 0.0, 0
    for command in commands:
        log = cwd / "command.log"
        before = time.monotonic()
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                cwd=cwd,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
            sampler = _Sampler(process.pid)
            sampler.start()
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        wall += time.monotonic() - before
        cpu += usage.ru_utime + usage.ru_stime
        memory = max(memory, sampler.finish())
        if process.returncode:
            tail = log.read_text(errors="replace")[-2000:]
            raise Failed(f"{' '.join(command)} exited {process.returncode}:\n{tail}")
    return Measurement(wall, cpu, memory)


class _Sampler(threading.Thread):
    """Watches the resident memory of a session every 20 ms."""

    def __init__(self, session: int) -> None:
        super().__init__(daemon=True)
        self._session = session
        self._done = threading.Event()
        self._peak = 0

    def run(self) -> None:
        while not self._done.wait(0.02):
            self._peak = max(self._peak, sum(_resident(pid) for pid in _members(self._session)))

    def finish(self) -> int:
        self._done.set()
        self.join()
        return self._peak


def _members(session: int) -> list[int]:
    members = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                stat = Path("/proc", name, "stat").read_text()
            except OSError:
                continue
            if int(stat.rpartition(")")[2].split()[3]) == session:
                members.append(int(name))
    return members


def _resident(pid: int) -> int:
    """Proportional set size where the kernel tells it: shared pages of parent and child count once."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    return 0
