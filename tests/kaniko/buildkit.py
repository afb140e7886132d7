"""BuildKit as the other side of the comparison: `buildkitd` and `buildctl` from one directory."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.kaniko.cases import Case, substituted
from tests.kaniko.conftest import Servers, environment_of, write_case
from tests.kaniko.forks import Done
from tests.kaniko.judge import Outcome

# Why some cases come out otherwise; the ids are as in the corpus.
REASONS = {
    "instructions/copy-chown-unknown": "unknown-owners: --unknown-owners=root does what docker build does",
    "instructions/run-killed-by-a-signal": "process-1: RUN is process 1 there, which signals of its own do not reach",
    "outputs/format-inherited": "exporter: buildctl chooses the format when it exports",
    "stages/copy-parents": "frontend: `# syntax=` is fetched there, and the registry does not have it",
    "stages/environment-does-not-leak": "telemetry: RUN gets variables of OpenTelemetry there",
    "stages/syntax-directive": "frontend: `# syntax=` is fetched there, and the registry does not have it",
}
# Flags that have no part in what the image is like.
_WITHOUT_PART = (
    *("--no-push", "--use-new-run", "--snapshot-mode", "--snapshotMode", "--cleanup", "--preserve-context", "--force"),
    *("--kaniko-dir", "--whitelist-var-run", "--log-format", "--log-timestamp", "--compressed-caching", "-v", "error"),
    *("--force-build-metadata", "--skip-unused-stages", "--skip-default-registry-fallback", "--digest-file"),
    *("--tar-path", "--destination"),
)
_TOML = """
root = "{directory}/state"
[grpc]
address = ["unix://{directory}/socket"]
[worker.containerd]
enabled = false
[worker.oci]
enabled = true
networkMode = "host"
[registry."docker.io"]
mirrors = ["{registry}"]
[registry."{registry}"]
http = true
"""


def options(case: Case) -> list[str] | None:
    """What buildctl gets for the arguments of `case`; None where it has nothing like them."""
    found: list[str] = []
    arguments = list(case.arguments)
    while arguments:
        name, equals, value = arguments.pop(0).partition("=")
        if name in ("--build-arg", "-d") and not equals:
            value = arguments.pop(0)
        if name == "--build-arg":
            key, given, text = value.partition("=")
            text = text if given else case.environment.get(key, "")
            found += ["--opt", f"build-arg:{key}={text}"] if given or key in case.environment else []
        elif name == "--target" and not any(each.startswith("target=") for each in found):
            found += ["--opt", f"target={value.partition(',')[0]}"]
        elif name in ("--custom-platform", "--customPlatform"):
            found += ["--opt", f"platform={value}"]
        elif name == "--label":
            found += ["--opt", f"label:{value}"]
        elif name == "--secret":
            found += ["--secret", value]
        elif name == "--dockerfile" and "@" not in value:
            found += ["--opt", f"filename={value}"]
        elif name not in (*_WITHOUT_PART, "--target", "-d"):
            return None
    return found


@dataclass(frozen=True)
class Buildkit:
    """A daemon that runs."""

    programs: Path
    socket: Path
    scratch: Path

    def run(self, case: Case, servers: Servers) -> Outcome | None:
        """Carry out `case`; None where it cannot be asked of BuildKit."""
        asked = options(case)
        if asked is None:
            return None
        directory = Path(tempfile.mkdtemp(dir=self.scratch))
        places = servers.places(directory)
        write_case(case, directory, places)
        context, archive = directory / "context", directory / "image.tar"
        command = [str(self.programs / "buildctl"), "--addr", f"unix://{self.socket}", "build", "--progress=plain"]
        command += ["--frontend=dockerfile.v0", f"--local=context={context}", f"--local=dockerfile={context}"]
        command += [f"--output=type=oci,dest={archive}", *(substituted(option, places) for option in asked)]
        env = environment_of(case, directory, servers)
        ended = subprocess.run(command, env=env, cwd=directory, capture_output=True, text=True, check=False)
        outcome = Outcome(Done(ended.returncode, ended.stdout, ended.stderr), directory)
        if ended.returncode == 0:
            shutil.rmtree(outcome.layout, ignore_errors=True)  # of a case that puts something there itself
            with tarfile.open(archive) as tar:
                tar.extractall(outcome.layout, filter="fully_trusted")
        return outcome


@contextlib.contextmanager
def buildkit(programs: Path, scratch: Path, registry: str) -> Iterator[Buildkit]:
    """Start the daemon, with `registry` as its mirror of Docker Hub."""
    directory = Path(tempfile.mkdtemp(dir=scratch))
    socket, config = directory / "socket", directory / "buildkitd.toml"
    config.write_text(_TOML.format(directory=directory, registry=registry))
    with open(directory / "log", "wb") as log:
        daemon = subprocess.Popen([programs / "buildkitd", "--config", config], stdout=log, stderr=log)
    try:
        question = [programs / "buildctl", "--addr", f"unix://{socket}", "debug", "workers"]
        while subprocess.run(question, capture_output=True, check=False).returncode != 0:
            if daemon.poll() is not None:
                raise RuntimeError(f"buildkitd ended:\n{(directory / 'log').read_text()}")
            time.sleep(0.1)
        yield Buildkit(programs, socket, scratch)
    finally:
        daemon.terminate()
        daemon.wait()
