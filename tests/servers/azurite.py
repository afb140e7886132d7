"""Azurite: Azure Blob Storage's API by Microsoft, shared keys and SAS checked."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.servers.certificates import Pair
from tests.servers.registry import free_port, wait_for

# scripts/setup-test-servers.sh puts it there
PROGRAM = Path(__file__).parents[2] / ".cache" / "test-servers" / "node_modules" / ".bin" / "azurite-blob"
ACCOUNT = "devstoreaccount1"
# Published in Azurite's documentation; it opens nothing else.
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


@dataclass(frozen=True)
class AzuriteServer:
    """`url` is the blob endpoint of the one account."""

    url: str
    account: str = ACCOUNT
    key: str = field(default=KEY, repr=False)


def missing() -> str:
    """Why it cannot be started, or ""."""
    if not shutil.which("node"):
        return "Node.js is not installed"
    return "" if PROGRAM.exists() else f"{PROGRAM} is not there: run scripts/setup-test-servers.sh"


@contextlib.contextmanager
def azurite(directory: Path, *, tls: Pair | None = None, in_memory: bool = True) -> Iterator[AzuriteServer]:
    """`in_memory`, or else in the directory. With `tls` it speaks https and takes bearer tokens as well."""
    directory.mkdir(parents=True, exist_ok=True)
    port = free_port()
    arguments = ["--blobHost", "127.0.0.1", "--blobPort", str(port), "--skipApiVersionCheck"]
    arguments += ["--inMemoryPersistence"] if in_memory else ["--location", str(directory)]
    arguments += ["--silent", "--disableTelemetry"]
    if tls:
        arguments += ["--cert", str(tls.certificate), "--key", str(tls.key), "--oauth", "basic"]
    with open(directory / "log", "wb") as log:
        process = subprocess.Popen([str(PROGRAM), *arguments], stdout=log, stderr=log, cwd=directory)
    try:
        wait_for(f"127.0.0.1:{port}", process)
        yield AzuriteServer(f"{'https' if tls else 'http'}://127.0.0.1:{port}/{ACCOUNT}")
    finally:
        process.kill()
        process.wait()
