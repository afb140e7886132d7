"""Limpet as a process, and what it must not leave behind."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import requests

CHECKOUT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Builder:
    """Builds `context` with everything that it writes in `work`. `base` is the layout that FROM base means."""

    directory: Path
    base: Path
    work: Path

    @property
    def context(self) -> Path:
        return self.directory / "context"

    def dockerfile(self, text: str, **files: bytes | str) -> None:
        """The context's Dockerfile, and other files of it by name."""
        (self.context / "Dockerfile").write_text(text)
        for name, data in files.items():
            (self.context / name).write_bytes(data.encode() if isinstance(data, str) else data)

    def command(self, *arguments: str) -> list[str]:
        """The command line; a later flag of `arguments` wins over the usual one."""
        usual = [f"--work-dir={self.work}", f"--build-context=base=oci-layout://{self.base}"]
        if not any(argument.startswith("--context=") for argument in arguments):
            usual.append(f"--context={self.context}")
        return [sys.executable, "-m", "builder", *usual, *arguments]

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """Nothing of the caller's but what Python needs."""
        home = self.directory / "home"
        home.mkdir(exist_ok=True)
        usual = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "HOME": str(home)}
        return {**usual, "DOCKER_CONFIG": str(home), **(extra or {})}

    def start(self, *arguments: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """A build under way, the leader of a session; stdout is empty, stderr the log."""
        return subprocess.Popen(
            self.command(*arguments),
            cwd=CHECKOUT,
            env=self.environment(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def __call__(self, *arguments: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """A finished build; fails when it left anything behind."""
        process = self.start(*arguments, env=env)
        out, err = process.communicate()
        self.assert_nothing_left(process)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def fails(self, *arguments: str, env: Mapping[str, str] | None = None, code: int = 1) -> str:
        """The log of a build that ends with `code` and one error, not with a traceback."""
        done = self(*arguments, env=env)
        assert done.returncode == code, done.stderr
        return assert_one_error(done.stderr)

    def assert_nothing_left(self, process: subprocess.Popen[str]) -> None:
        """No file in the work directory, no mount below it in any namespace, no process."""
        assert not self.work.exists() or os.listdir(self.work) == []
        assert left_behind(process.pid, self.work) == []


def assert_one_error(log: str) -> str:
    """`log`, which says one thing that is wrong."""
    assert "Traceback" not in log, log
    assert "internal:" not in log, log
    assert len([line for line in log.splitlines() if line.startswith("error: ")]) == 1, log
    return log


def left_behind(session: int, work: Path) -> list[str]:
    """Processes of `session`, and those that use a path below `work`: as an argument, mount, root or directory."""
    below = f"{work}/"
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            state, _, _, its_session = (process / "stat").read_text().rpartition(")")[2].split()[:4]
            if state == "Z":
                continue  # it ended; whoever adopted it has not looked yet
            uses = int(its_session) == session or any(below in text for text in _paths_used(process))
            if uses:
                found.append(f"{process.name}: {(process / 'cmdline').read_bytes()!r}")
        except (FileNotFoundError, ProcessLookupError):
            continue
        except OSError as error:
            if error.errno != errno.EINVAL:  # mountinfo of a process that has just let go of its namespaces to end
                raise
    return found


def _paths_used(process: Path) -> list[str]:
    """What tells where a process works; nothing for one that this user may not look at, which no test started."""
    try:
        texts = [(process / name).read_text(errors="replace") for name in ("cmdline", "mountinfo")]
        return [*texts, *(os.readlink(process / name) + "/" for name in ("root", "cwd"))]
    except PermissionError:
        return []


def tags(host: str, repository: str) -> list[str]:
    """The tags of a repository; none if there is no such repository."""
    answer = requests.get(f"http://{host}/v2/{repository}/tags/list")
    if answer.status_code == 404:
        return []
    answer.raise_for_status()
    return list(answer.json()["tags"] or [])
