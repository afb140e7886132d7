"""Registries, and clients of them."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from builder.oci.image import Image
from builder.oci.reference import Reference
from builder.registry.credentials import Credentials
from builder.registry.push import Uploader
from builder.registry.registries import Registries
from builder.registry.settings import RegistrySettings
from tests.images import image, layer, noise
from tests.servers.certificates import Authority, Pair
from tests.servers.front import Front, front
from tests.servers.registry import DISTRIBUTION_2, PROGRAMS, RegistryServer, docker_registry, missing
from tests.servers.tokens import TokenServer, token_server

_OF_EVERY_REGISTRY = ("test_authentication", "test_push_pull", "test_uploads")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests of what registries do differently run with each implementation."""
    if "program" in metafunc.fixturenames:
        every = metafunc.module.__name__.rpartition(".")[2] in _OF_EVERY_REGISTRY
        programs = PROGRAMS if every else {"distribution-2": DISTRIBUTION_2}
        metafunc.parametrize("program", programs.values(), ids=programs, indirect=True, scope="session")


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


@pytest.fixture(scope="session")
def signer(authority: Authority) -> Pair:
    """What token servers sign with."""
    return authority.server("signer")


@pytest.fixture
def shop(plain: RegistryServer, troubled: Callable[..., Front]) -> Front:
    """A front before the plain registry."""
    return troubled(plain.host)


@pytest.fixture
def made() -> Image:
    """An image whose first layer is three megabytes of noise."""
    return image(layer({"a": noise(3_000_000)}), layer({"b": b"2"}))


@pytest.fixture
def pushed(plain: RegistryServer, connect: Connect, name: str, made: Image) -> Image:
    """`made`, in the plain registry under the test's name."""
    registries = connect()
    with Uploader(registries, registries.repository(Reference.parse(f"{plain.host}/{name}"), "push")) as uploader:
        uploader.finish(made, ["1"])
    return made


@pytest.fixture
def tokens(signer: Pair) -> Iterator[TokenServer]:
    """A token server over plain HTTP."""
    with token_server(signer) as server:
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
