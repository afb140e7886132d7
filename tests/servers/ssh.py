"""OpenSSH's server for git, with keys of its own."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.servers.registry import free_port, wait_for


@dataclass(frozen=True)
class SshServer:
    """`host` is 127.0.0.1:port. `key` is a private key that `user` may log in with, `known_hosts` has the host's."""

    host: str
    user: str
    key: Path
    stranger: Path
    known_hosts: Path


def missing() -> str:
    """Why it cannot be started, or ""."""
    absent = [name for name in ("sshd", "ssh", "ssh-keygen", "ssh-agent") if not shutil.which(name, path=_PATH)]
    return f"{', '.join(absent)} not installed" if absent else ""


_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin"


@contextlib.contextmanager
def ssh_server(directory: Path) -> Iterator[SshServer]:
    """For the user who runs the tests; anybody else's key is refused."""
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o700)
    host_key, key, stranger = (directory / name for name in ("host", "id_ed25519", "stranger"))
    for path in (host_key, key, stranger):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    (directory / "authorized").write_text(Path(f"{key}.pub").read_text())
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where sshd separates privileges
    port = free_port()
    config = directory / "sshd_config"
    config.write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {host_key}\nAuthorizedKeysFile {directory / 'authorized'}\n"
        "PasswordAuthentication no\nKbdInteractiveAuthentication no\nPubkeyAuthentication yes\nUsePAM no\n"
        "PermitRootLogin prohibit-password\nStrictModes no\nPidFile none\nLogLevel ERROR\nAcceptEnv GIT_PROTOCOL\n"
    )
    known_hosts = directory / "known_hosts"
    public = " ".join(Path(f"{host_key}.pub").read_text().split()[:2])
    known_hosts.write_text(f"[127.0.0.1]:{port} {public}\n")
    sshd = shutil.which("sshd", path=_PATH)
    assert sshd is not None
    with open(directory / "log", "wb") as log:
        process = subprocess.Popen([sshd, "-D", "-e", "-f", str(config)], stdout=log, stderr=log)
    try:
        wait_for(f"127.0.0.1:{port}", process)
        yield SshServer(f"127.0.0.1:{port}", pwd.getpwuid(os.geteuid()).pw_name, key, stranger, known_hosts)
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def ssh_agent(directory: Path, key: Path) -> Iterator[Path]:
    """The socket of an agent that holds `key`."""
    directory.mkdir(parents=True, exist_ok=True)
    socket = directory / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(socket)], stdout=subprocess.DEVNULL)
    try:
        while not socket.exists():
            assert process.poll() is None
        environment = {"PATH": os.environ["PATH"], "SSH_AUTH_SOCK": str(socket)}
        subprocess.run(["ssh-add", "-q", str(key)], env=environment, check=True)
        yield socket
    finally:
        process.kill()
        process.wait()
