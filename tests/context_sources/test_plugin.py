"""The example of docs/context-source-plugin.md, installed from the page and used."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.context_sources.conftest import FILES, archive_of

PAGE = Path(__file__).parents[2] / "docs" / "context-source-plugin.md"
BLOCK = re.compile(r"^`([a-z_.]+)`:\n\n```[a-z]+\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks() -> dict[str, str]:
    return dict(BLOCK.findall(PAGE.read_text()))


def test_the_example_has_about_thirty_lines() -> None:
    assert set(blocks()) == {"limpet_unix.py", "pyproject.toml"}
    assert sum(len(text.splitlines()) for text in blocks().values()) <= 36


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory that the package was installed into."""
    package, target = tmp_path_factory.mktemp("package"), tmp_path_factory.mktemp("installed")
    for name, text in blocks().items():
        (package / name).write_text(text)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--no-build-isolation", "--target", str(target), str(package)], check=True)
    return target


@contextmanager
def sidecar(path: Path, data: bytes) -> Iterator[None]:
    """Sends `data` to the first that connects."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(data)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield
        thread.join()


def build(installed: Path, directory: Path, context: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "HOME": str(directory), "PYTHONPATH": str(installed)}
    command = [sys.executable, "-m", "builder", f"--context={context}", "--no-push", "--verbosity=debug"]
    layout = f"--oci-layout-path={directory / 'layout'}"
    return subprocess.run([*command, layout], env=environment, cwd=directory, capture_output=True, text=True)


def test_the_example_is_used(installed: Path, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with sidecar(path, archive_of(FILES)):
        done = build(installed, tmp_path, f"unix://{path}")
    assert done.returncode == 0, done.stderr
    assert f"unix://{path}: connected" in done.stderr
    assert (tmp_path / "layout" / "index.json").exists()


def test_its_errors_are_errors_of_the_user(installed: Path, tmp_path: Path) -> None:
    done = build(installed, tmp_path, f"unix://{tmp_path}/absent")
    assert done.returncode == 1
    assert f"error: unix://{tmp_path}/absent: No such file or directory" in done.stderr
    assert "is the sidecar running?" in done.stderr


def test_without_the_package_its_scheme_is_unknown(tmp_path: Path) -> None:
    done = build(tmp_path, tmp_path, "unix:///socket")
    assert done.returncode == 1
    assert "no source for unix://" in done.stderr
