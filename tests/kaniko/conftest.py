"""The executor, and a mirror of Docker Hub that has the corpus's base images."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from builder.oci.reference import Reference
from builder.registry.credentials import Credentials
from builder.registry.push import Uploader
from builder.registry.registries import Registries
from builder.registry.settings import RegistrySettings
from tests.build import busybox
from tests.kaniko.bases import BASES
from tests.kaniko.cases import Case, substituted, write_context
from tests.kaniko.forks import Forks, forks
from tests.kaniko.judge import Outcome
from tests.servers import registry as registries
from tests.servers import web
from tests.servers.registry import docker_registry


@dataclass(frozen=True)
class Servers:
    """What cases reach: `registry` has the base images below library/, `web` serves files."""

    registry: str
    web: str

    def places(self, directory: Path) -> dict[str, str]:
        """What `@NAME@` means in a case that runs in `directory`."""
        return {"REGISTRY": self.registry, "WEB": f"http://{self.web}", "DIR": str(directory)}

    def arguments(self, case: Case, directory: Path) -> list[str]:
        """The executor's command line. Cases that name no output get a layout."""
        given = [substituted(argument, self.places(directory)) for argument in case.arguments]
        usual = [f"--context={directory / 'context'}", f"--registry-mirror={self.registry}"]
        if not any(argument.startswith(("-d", "--destination", "--no-push")) for argument in given):
            usual.append("--no-push")
        if not any(argument.startswith("--oci-layout-path") for argument in given):
            usual.append(f"--oci-layout-path={directory / 'out'}")
        return [*usual, *given]


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """The servers of the corpus."""
    if reason := busybox.missing() or registries.missing() or web.missing():
        pytest.skip(reason)
    with contextlib.ExitStack() as stack:
        hub = stack.enter_context(docker_registry(tmp_path_factory.mktemp("hub")))
        files = stack.enter_context(web.web_server(tmp_path_factory.mktemp("web")))
        push_bases(hub.host)
        fill(files.root)
        yield Servers(hub.host, files.host)


def push_bases(host: str) -> None:
    """Put every base image into the registry at `host`, below library/."""
    client = Registries(RegistrySettings(), Credentials({}), {})
    for name, make in BASES.items():
        reference = Reference.parse(f"{host}/library/{name}:latest")
        with Uploader(client, client.repository(reference, "push")) as uploader:
            uploader.finish(make(), ["latest"])
    client.close()


def fill(root: Path) -> None:
    """What the web server has."""
    (root / "file.txt").write_text("from the web\n")
    os.utime(root / "file.txt", (1_500_000_000, 1_500_000_000))
    (root / "Dockerfile").write_text("FROM scratch\nCOPY from-context /from-context\n")


@pytest.fixture(scope="session")
def executor() -> Iterator[Forks]:
    """`/kaniko/executor`."""
    with forks() as process:
        yield process


def run(case: Case, executor: Forks, servers: Servers, directory: Path) -> Outcome:
    """Carry out `case` in `directory`, which is empty."""
    write_case(case, directory, servers.places(directory))
    env = environment_of(case, directory, servers)
    return Outcome(executor.run(servers.arguments(case, directory), env, directory), directory)


def write_case(case: Case, directory: Path, places: Mapping[str, str]) -> None:
    """Make the context of `case` in `directory`, with `@NAME@` replaced in its Dockerfile."""
    write_context(case, directory / "context")
    dockerfile = directory / "context/Dockerfile"
    if dockerfile.exists():
        dockerfile.write_text(substituted(dockerfile.read_text(), places))


def environment_of(case: Case, directory: Path, servers: Servers) -> dict[str, str]:
    """The executor's whole environment when it runs in `directory`."""
    usual = {"PATH": os.environ["PATH"], "HOME": str(directory), "TMPDIR": str(directory)}
    return {**usual, **{k: substituted(v, servers.places(directory)) for k, v in case.environment.items()}}
