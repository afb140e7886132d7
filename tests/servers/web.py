"""lighttpd: files over plain http, with ranges, ETags and basic authentication. `front` puts TLS before it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.servers.registry import free_port, wait_for

_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin"


@dataclass(frozen=True)
class WebServer:
    """`host` is 127.0.0.1:port, `root` what it serves; below /private/ it asks for a login."""

    host: str
    root: Path


def missing() -> str:
    """Why it cannot be started, or ""."""
    return "" if shutil.which("lighttpd", path=_PATH) else "lighttpd is not installed"


@contextlib.contextmanager
def web_server(directory: Path, users: dict[str, str] | None = None) -> Iterator[WebServer]:
    """`users` may read /private/."""
    root = directory / "root"
    (root / "private").mkdir(parents=True, exist_ok=True)
    (directory / "users").write_text("".join(f"{name}:{password}\n" for name, password in (users or {}).items()))
    port = free_port()
    config = directory / "lighttpd.conf"
    config.write_text(
        f'server.document-root = "{root}"\nserver.bind = "127.0.0.1"\nserver.port = {port}\n'
        'server.modules = ("mod_auth", "mod_authn_file")\nserver.follow-symlink = "enable"\n'
        'server.stat-cache-engine = "disable"\n'
        f'auth.backend = "plain"\nauth.backend.plain.userfile = "{directory / "users"}"\n'
        'auth.require = ("/private/" => ("method" => "basic", "realm" => "tests", "require" => "valid-user"))\n'
        'mimetype.assign = ("" => "application/octet-stream")\n'
    )
    program = shutil.which("lighttpd", path=_PATH)
    assert program is not None
    with open(directory / "log", "wb") as log:
        process = subprocess.Popen([program, "-D", "-f", str(config)], stdout=log, stderr=log)
    try:
        wait_for(f"127.0.0.1:{port}", process)
        yield WebServer(f"127.0.0.1:{port}", root)
    finally:
        process.kill()
        process.wait()
