"""Registries, and clients of them."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from builder.registry.credentials import Credentials
from builder.registry.registries import Registries
from builder.registry.settings import RegistrySettings
from tests.servers.certificates import Authority
from tests.servers.front import Front, front
from tests.servers.registry import PROGRAMS, RegistryServer, docker_registry, missing
from tests.servers.tokens import TokenServer, token_server


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every test that starts a registry runs with each implementation."""
    if "program" in metafunc.fixturenames:
        metafunc.parametrize("program", PROGRAMS.values(), ids=PROGRAMS, indirect=True, scope="session")


@pytest.fixture(scope="session")
def program(request: pytest.FixtureRequest) -> str:
    """The registry's program."""
    chosen: str = request.param
    if missing(chosen):
        pytest.skip(missing(chosen))
    return chosen


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory, program: str) -> Iterator[RegistryServer]:
    """One registry without TLS and authentication for all tests; each uses names of its own."""
    with docker_registry(tmp_path_factory.mktemp("plain"), program=program) as server:
        yield server


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """A certificate authority that no system trusts."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def registry(tmp_path: Path, program: str) -> Iterator[Callable[..., RegistryServer]]:
    """Starts registries; the arguments are those of docker_registry without the directory."""
    numbers = itertools.count()
    with contextlib.ExitStack() as stack:
        yield lambda **options: stack.enter_context(
            docker_registry(options.pop("directory", tmp_path / f"registry{next(numbers)}"), program=program, **options)
        )


@pytest.fixture
def troubled() -> Iterator[Callable[..., Front]]:
    """Puts a front that makes trouble before a host."""
    with contextlib.ExitStack() as stack:
        yield lambda host, **options: stack.enter_context(front(host, **options))


@pytest.fixture
def tokens(tmp_path: Path) -> Iterator[TokenServer]:
    """A token server over plain HTTP."""
    with token_server(tmp_path / "tokens") as server:
        yield server


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A repository name that only this test uses."""
    return "".join(char if char.isalnum() else "-" for char in request.node.name.lower()).strip("-").replace("--", "-")


Connect = Callable[..., Registries]


@pytest.fixture
def connect(tmp_path: Path) -> Iterator[Connect]:
    """Clients: `connect(environ, **settings)`. Back-off is short."""
    made: list[Registries] = []

    def make(environ: Mapping[str, str] | None = None, **settings: Any) -> Registries:
        # HOME keeps the credentials of whoever runs the tests out.
        variables = {"HOME": str(tmp_path / "home"), **(environ or {})}
        registries = Registries(RegistrySettings(**{"backoff": 0.01, **settings}), Credentials(variables), variables)
        made.append(registries)
        return registries

    yield make
    for registries in made:
        registries.close()
