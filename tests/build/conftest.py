"""A base image, a registry, and builds through the command line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.build import busybox
from tests.build.program import Builder
from tests.servers.registry import RegistryServer, docker_registry, missing


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An OCI layout with a shell in it."""
    if busybox.missing():
        pytest.skip(busybox.missing())
    directory = tmp_path_factory.mktemp("base")
    busybox.write_layout(directory)
    return directory


@pytest.fixture
def limpet(tmp_path: Path, base: Path) -> Builder:
    builder = Builder(tmp_path / "build", base, tmp_path / "build/work")
    builder.context.mkdir(parents=True)
    return builder


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    """One for all tests; each uses names of its own."""
    if missing():
        pytest.skip(missing())
    with docker_registry(tmp_path_factory.mktemp("registry")) as server:
        yield server
