"""Run commands and measure them: wall time, CPU time, peak memory of everything that they start."""

from __future__ import annotations

import ctypes
import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_LIBC = ctypes.CDLL(None)
_KCMP, _KCMP_VM = 312, 1


@dataclass(frozen=True, slots=True)
class Measurement:
    """`wall` and `cpu` in seconds, `memory` in bytes: the largest sum of proportional set sizes at one moment.

    `moved` is bytes to and from the registry, 0 where nobody counted.
    """

    wall: float
    cpu: float
    memory: int
    moved: int = 0


class Failed(Exception):
    """The command exited non-zero; the message has the end of what it said."""


def measure(
    commands: Sequence[Sequence[str]], *, cwd: Path, env: Mapping[str, str] | None = None, daemon: int = 0
) -> Measurement:
    """Run `commands` one after the other as one measured whole; process `daemon` works for them. Raises Failed."""
    wall, cpu, memory = 0.0, 0.0, 0
    log = cwd / "command.log"
    before_daemon = _cpu_seconds(daemon)
    for command in commands:
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
            sampler = _Sampler({process.pid, daemon} - {0})
            sampler.start()
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        wall += time.monotonic() - before
        cpu += usage.ru_utime + usage.ru_stime
        memory = max(memory, sampler.finish())
        if process.returncode:
            tail = log.read_text(errors="replace")[-2000:]
            raise Failed(f"{' '.join(command)} exited {process.returncode}:\n{tail}")
    return Measurement(wall, cpu + _cpu_seconds(daemon) - before_daemon, memory)


def _cpu_seconds(pid: int) -> float:
    """CPU time of a process and of its children that ended (proc(5), fields 14 to 17 of /proc/PID/stat)."""
    if not pid:
        return 0.0
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


class _Sampler(threading.Thread):
    """Watches the memory of processes and of all below them every 50 ms."""

    def __init__(self, roots: set[int]) -> None:
        super().__init__(daemon=True)
        self._roots = roots
        self._done = threading.Event()
        self._peak = 0

    def run(self) -> None:
        while not self._done.wait(0.05):
            processes = _descendants(self._roots)
            resident = (_resident(pid) for pid, parent in processes.items() if not _same_memory(pid, parent))
            self._peak = max(self._peak, sum(resident))

    def finish(self) -> int:
        self._done.set()
        self.join()
        return self._peak


def _descendants(roots: set[int]) -> dict[int, int]:
    """`roots`, everything below them and everything in their sessions, each with its parent."""
    parents: dict[int, tuple[int, int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                fields = Path("/proc", name, "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(name)] = (int(fields[1]), int(fields[3]))
    found = set(roots)
    while True:
        more = {pid for pid, (parent, session) in parents.items() if parent in found or session in roots} - found
        if not more:
            return {pid: parents[pid][0] for pid in found if pid in parents}
        found |= more


def _same_memory(one: int, other: int) -> bool:
    """Whether two processes are in one address space, as a child is between vfork and exec (kcmp(2), x86-64)."""
    return _LIBC.syscall(_KCMP, one, other, _KCMP_VM, 0, 0) == 0


def _resident(pid: int) -> int:
    """Proportional set size: pages that parent and child share count once."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    return 0
