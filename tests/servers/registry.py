"""Registries in every set-up that tests need: Debian's docker-registry (distribution 2), and distribution 3."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import ssl
import subprocess
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

DISTRIBUTION_2 = "docker-registry"
DISTRIBUTION_3 = str(Path(__file__).parents[2] / ".cache/test-servers/bin/registry")
PROGRAMS = {"distribution-2": DISTRIBUTION_2, "distribution-3": DISTRIBUTION_3}


@dataclass(frozen=True)
class RegistryServer:
    """A running registry. `host` is 127.0.0.1:port, `log` its output so far, `storage` its files."""

    host: str
    directory: Path
    process: subprocess.Popen[bytes] = field(repr=False)
    username: str = ""
    password: str = field(default="", repr=False)
    tls: bool = False

    @property
    def storage(self) -> Path:
        return self.directory / "storage"

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text(errors="replace")

    def requests(self, method: str = "", path: str = "") -> list[str]:
        """`METHOD URI STATUS` of each request answered well so far that has this method and contains `path`."""
        self._settle()
        found = []
        for line in self.log.splitlines():
            if not line.startswith("{"):
                continue
            entry = json.loads(line)
            if entry.get("msg") != "response completed":
                continue
            if "/v2/?" in entry["http.request.uri"]:
                continue
            text = f"{entry['http.request.method']} {entry['http.request.uri']} {entry['http.response.status']}"
            if text.startswith(method) and path in text:
                found.append(text)
        return found

    def _settle(self) -> None:
        """The log entry of an answer is written after the answer: wait for that of one more request."""
        mark = uuid.uuid4().hex
        host, _, port = self.host.rpartition(":")
        with socket.create_connection((host, int(port))) as plain:
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            with context.wrap_socket(plain) if self.tls else plain as connection:
                connection.sendall(f"GET /v2/?{mark} HTTP/1.0\r\nHost: {self.host}\r\n\r\n".encode())
                while connection.recv(4096):
                    pass
        while mark not in self.log:
            time.sleep(0.002)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


@dataclass(frozen=True)
class TokenAuth:
    """Where docker-registry sends clients for a token, and the certificate that signs its tokens."""

    realm: str
    service: str
    issuer: str
    certificate: Path


@contextlib.contextmanager
def docker_registry(
    directory: Path,
    *,
    certificate: tuple[Path, Path] | None = None,
    client_authority: Path | None = None,
    users: dict[str, str] | None = None,
    token: TokenAuth | None = None,
    mirror_of: str = "",
    port: int = 0,
    relative_urls: bool = True,
    listen: str = "127.0.0.1",
    program: str = DISTRIBUTION_2,
) -> Iterator[RegistryServer]:
    """`certificate` and key make it TLS, `client_authority` asks for client certificates signed by it, `users` makes
    it ask for Basic, `token` for Bearer; `mirror_of` (a URL) makes it a pull-through cache. A `directory` that was
    used before still has its contents.
    """
    directory.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    host = f"127.0.0.1:{port}"
    config: dict[str, Any] = {
        "version": "0.1",
        "log": {"formatter": "json", "level": "info"},
        "storage": {
            "filesystem": {"rootdirectory": str(directory / "storage")},
            "delete": {"enabled": True},
            "maintenance": {"uploadpurging": {"enabled": False}},
        },
        "http": {"addr": f"{listen}:{port}", "relativeurls": relative_urls, "secret": "x"},
    }
    if certificate:
        config["http"]["tls"] = {"certificate": str(certificate[0]), "key": str(certificate[1])}
        if client_authority:
            config["http"]["tls"]["clientcas"] = [str(client_authority)]
    if users:
        config["auth"] = {"htpasswd": {"realm": "tests", "path": str(_htpasswd(directory, users))}}
    if token:
        config["auth"] = {
            "token": {
                "realm": token.realm,
                "service": token.service,
                "issuer": token.issuer,
                "rootcertbundle": str(token.certificate),
            }
        }
    if mirror_of:
        config["proxy"] = {"remoteurl": mirror_of}
    file = directory / "config.json"
    file.write_text(json.dumps(config))  # JSON is YAML
    user, password = next(iter((users or {"": ""}).items()))
    with open(directory / "log", "ab") as log:
        process = subprocess.Popen(
            [program, "serve", str(file)],
            stdout=log,
            stderr=log,
            env={"PATH": os.environ["PATH"], "OTEL_TRACES_EXPORTER": "none"},
        )
    server = RegistryServer(host, directory, process, user, password, certificate is not None)
    try:
        wait_for(host, process)
        yield server
    finally:
        server.stop()


def missing(program: str = DISTRIBUTION_2) -> str:
    """Why `program` cannot be started, or ""."""
    if shutil.which(program):
        return ""
    if program == DISTRIBUTION_3:
        return "distribution 3 is not installed; scripts/setup-second-registry.sh does it where there is Go"
    return f"{program} is not installed"


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for(host: str, process: subprocess.Popen[bytes]) -> None:
    """Return when `host` accepts connections. Fails when the process ends first."""
    address, _, port = host.rpartition(":")
    while True:
        with contextlib.suppress(OSError), socket.create_connection((address, int(port)), timeout=1):
            return
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended with {process.returncode}")
        time.sleep(0.005)


def _htpasswd(directory: Path, users: dict[str, str]) -> Path:
    path = directory / "htpasswd"
    lines = [
        subprocess.run(
            ["htpasswd", "-niBC", "4", user], input=password, text=True, check=True, capture_output=True
        ).stdout
        for user, password in users.items()
    ]
    path.write_text("".join(lines))
    return path
