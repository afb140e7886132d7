"""git's own protocol: git daemon."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.servers.registry import free_port, wait_for


@contextlib.contextmanager
def git_daemon(root: Path) -> Iterator[str]:
    """The host, 127.0.0.1:port; every repository below `root` can be read."""
    port = free_port()
    process = subprocess.Popen(
        ["git", "daemon", "--listen=127.0.0.1", f"--port={port}", f"--base-path={root}", "--export-all", "--reuseaddr"],
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_for(f"127.0.0.1:{port}", process)
        yield f"127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
