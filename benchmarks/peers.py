"""The builders that are compared: each knows how to build one context and to push it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

ROOT = Path(__file__).parent.parent
DAEMONLESS = Path(__file__).parent / "buildkit-daemonless.sh"
KANIKO_IN_CHROOT = Path(__file__).parent / "kaniko-in-chroot.sh"


@dataclass(frozen=True, slots=True)
class Job:
    """One build: `context` to `destination` on registry `host`, with `state` as an empty directory to work in.

    `base` is the image that the context builds on. `cache` is a repository for cached layers, "" for no cache.
    """

    context: Path
    destination: str
    host: str
    state: Path
    base: str
    cache: str = ""


class Peer(Protocol):
    """A builder. What `ready` does before and after is not measured; it gives the pid of a daemon, or 0."""

    name: str

    def ready(self, job: Job) -> Iterator[int]: ...

    def commands(self, job: Job) -> Sequence[Sequence[str]]: ...


def limpet_environment(pycache: Path) -> dict[str, str]:
    """Limpet runs from compiled modules, as in its image."""
    env = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    return {**env, "PYTHONPATH": str(ROOT), "PYTHONPYCACHEPREFIX": str(pycache)}


class Limpet:
    """This project, in its fastest isolation; `warm`: with a local store that has the base image."""

    def __init__(self, *, warm: bool = False) -> None:
        self.name = "limpet, warm store" if warm else "limpet"
        self._warm = warm

    def ready(self, job: Job) -> Iterator[int]:
        if self._warm:
            _run(*self._program("warm"), f"--cache-dir={job.state}/store", f"--image={job.base}")
        yield 0

    def commands(self, job: Job) -> Sequence[Sequence[str]]:
        flags = [f"--context={job.context}", f"--destination={job.destination}", f"--work-dir={job.state}/work"]
        if self._warm:
            flags.append(f"--cache-dir={job.state}/store")
        if job.cache:
            flags += ["--cache", f"--cache-repo={job.cache}", "--cache-copy-layers"]
        return [[*self._program("build"), *flags]]

    def _program(self, command: str) -> list[str]:
        return [sys.executable, "-m", "builder", command]


class Buildah:
    """Debian's buildah with chroot isolation and overlay storage: what runs without a daemon."""

    name = "buildah"

    def ready(self, job: Job) -> Iterator[int]:
        yield 0
        for path in (job.state / "root" / "overlay", job.state / "root"):
            if path.is_mount():
                _run("umount", str(path))

    def commands(self, job: Job) -> Sequence[Sequence[str]]:
        program = ["buildah", "--root", f"{job.state}/root", "--runroot", f"{job.state}/run"]
        program += ["--storage-driver", "overlay"]
        build = ["bud", "--isolation", "chroot", "--tls-verify=false", "--layers=false", "-q", "-t", job.destination]
        return [
            [*program, *build, str(job.context)],
            [*program, "push", "--tls-verify=false", "-q", job.destination],
        ]


class Kaniko:
    """kaniko's executor in a root directory of its own, with its own /proc, as in a pod."""

    name = "kaniko"

    def __init__(self, executor: Path) -> None:
        self._executor = executor

    def ready(self, job: Job) -> Iterator[int]:
        (job.state / "kaniko").mkdir()
        shutil.copy(self._executor, job.state / "kaniko/executor")
        yield 0

    def commands(self, job: Job) -> Sequence[Sequence[str]]:
        flags = [f"--destination={job.destination}", "--insecure", "--insecure-pull"]
        if job.cache:
            flags += ["--cache", f"--cache-repo={job.cache}", "--cache-copy-layers"]
        return [[str(KANIKO_IN_CHROOT), str(job.state), str(job.context), *flags]]


class BuildKit:
    """buildkitd and buildctl; cold: a daemon with an empty state for each build, as buildctl-daemonless.sh does.

    `warm`: a daemon runs already and has the base image unpacked; what steps make is not cached.
    """

    def __init__(self, programs: Path, *, warm: bool = False) -> None:
        self.name = "buildkit, warm daemon" if warm else "buildkit"
        self._programs = programs
        self._warm = warm

    def ready(self, job: Job) -> Iterator[int]:
        configuration = "".join(f'[registry."{host}"]\nhttp = true\n' for host in {job.host, job.base.split("/")[0]})
        (job.state / "buildkitd.toml").write_text(configuration)
        if not self._warm:
            yield 0
            return
        env = {**os.environ, "PATH": f"{self._programs}:{os.environ['PATH']}"}
        daemon = subprocess.Popen(
            [str(DAEMONLESS), str(job.state), "--daemon"], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            self._pull_base(job)
            yield daemon.pid
        finally:
            daemon.terminate()
            daemon.wait()

    def _pull_base(self, job: Job) -> None:
        context = job.state / "base-context"
        context.mkdir()
        (context / "Dockerfile").write_text(f"FROM {job.base}\nRUN true\n")
        while not (job.state / "socket").exists():
            time.sleep(0.05)
        _run(*self._buildctl(job, context), "--output", "type=image,name=unused")

    def _buildctl(self, job: Job, context: Path) -> list[str]:
        return [
            *(str(self._programs / "buildctl"), "--addr", f"unix://{job.state}/socket", "build", "--no-cache"),
            *("--progress=plain", "--frontend", "dockerfile.v0"),
            *("--local", f"context={context}", "--local", f"dockerfile={context}"),
        ]

    def commands(self, job: Job) -> Sequence[Sequence[str]]:
        build = [*self._buildctl(job, job.context), "--output", f"type=image,name={job.destination},push=true"]
        if job.cache:
            build.remove("--no-cache")
            build += ["--export-cache", f"type=registry,ref={job.cache}:cache,mode=max"]
            build += ["--import-cache", f"type=registry,ref={job.cache}:cache"]
        if self._warm:
            return [build]
        path = f"PATH={self._programs}:{os.environ['PATH']}"
        return [["env", path, str(DAEMONLESS), str(job.state), *build]]


@contextmanager
def cold(peer: Peer, job: Job) -> Iterator[int]:
    """Everything that `peer` needs before it starts, in an empty state directory; the pid of its daemon, or 0."""
    remove(job.state)
    job.state.mkdir(parents=True)
    steps = peer.ready(job)
    try:
        yield next(steps)
    finally:
        for _ in steps:
            pass
        remove(job.state)


def remove(state: Path) -> None:
    """Remove a state directory; mounts that a failed build left below it go first."""
    with open("/proc/self/mountinfo") as lines:
        below = [line.split()[4] for line in lines if line.split()[4].startswith(f"{state}/")]
    for place in reversed(below):
        subprocess.run(["umount", "--lazy", place], check=False)
    shutil.rmtree(state, ignore_errors=True)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
