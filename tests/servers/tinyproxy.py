"""tinyproxy: forwards http and tunnels https (CONNECT), for those who say `me` and `secret`."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.servers.registry import free_port, wait_for


def missing() -> str:
    """Why it cannot be started, or ""."""
    return "" if shutil.which("tinyproxy") else "tinyproxy is not installed"


@contextlib.contextmanager
def tinyproxy(directory: Path) -> Iterator[tuple[str, Path]]:
    """127.0.0.1:port, and its log."""
    port, log = free_port(), directory / "log"
    config = directory / "tinyproxy.conf"
    config.write_text(
        f'Port {port}\nListen 127.0.0.1\nLogFile "{log}"\nLogLevel Info\nBasicAuth me secret\nAllow 127.0.0.1\n'
        "Timeout 30\nMaxClients 10\n"
    )
    process = subprocess.Popen(["tinyproxy", "-d", "-c", config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(f"127.0.0.1:{port}", process)
        yield f"127.0.0.1:{port}", log
    finally:
        process.kill()
        process.wait()
