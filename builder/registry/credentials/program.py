"""docker-credential-* programs: they print a credential for the server whose name they read."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence

from builder.errors import RegistryError, UsageError
from builder.registry.credentials.credential import Credential

_NAME = re.compile(r"[A-Za-z0-9_.-]+")
_NOT_FOUND = ("credentials not found in native keychain", "no credentials server url", "no credentials username")
_TIMEOUT = 120  # seconds; helpers of clouds ask metadata servers


def is_installed(name: str, environ: Mapping[str, str]) -> bool:
    """Whether there is a program docker-credential-`name`."""
    return shutil.which(f"docker-credential-{name}", path=environ.get("PATH", "")) is not None


def helper_path(name: str, environ: Mapping[str, str], origin: str) -> str:
    """The program docker-credential-`name`. Raises UsageError when there is none; `origin` is where it is named."""
    if not _NAME.fullmatch(name):
        raise UsageError(f"{origin}: {name!r} is not the name of a credential helper")
    path = shutil.which(f"docker-credential-{name}", path=environ.get("PATH", ""))
    if path is None:
        raise UsageError(
            f"{origin} names the credential helper {name!r}, but there is no docker-credential-{name} in PATH",
            "put it into PATH, or take the entry out of the file",
        )
    return path


def get(command: Sequence[str], server: str, environ: Mapping[str, str], origin: str) -> Credential | None:
    """What `command` answers for `server`, None when it has nothing. Raises RegistryError when it fails."""
    ended = _run([*command, "get"], server.encode(), environ, origin)
    if ended.returncode != 0:
        said = (ended.stdout + ended.stderr).decode("utf-8", "replace").strip()
        if any(words in said.lower() for words in _NOT_FOUND):
            return None
        raise RegistryError(f"{origin} failed for {server}: {_last_line(said) or f'exit code {ended.returncode}'}")
    try:
        value = json.loads(ended.stdout)
        username, secret = str(value.get("Username") or ""), str(value.get("Secret") or "")
        expires = float(value["Expires"]) if value.get("Expires") else None
    except (ValueError, AttributeError, TypeError) as error:
        raise RegistryError(f"{origin} printed something that is no credential for {server}") from error
    return credential(username, secret, origin, expires)


def store(command: Sequence[str], server: str, username: str, secret: str, environ: Mapping[str, str]) -> None:
    """Have `command` keep a credential. Raises RegistryError when it fails."""
    value = json.dumps({"ServerURL": server, "Username": username, "Secret": secret}).encode()
    ended = _run([*command, "store"], value, environ, command[0])
    if ended.returncode != 0:
        said = (ended.stdout + ended.stderr).decode("utf-8", "replace").replace(secret, "***")
        raise RegistryError(f"{command[0]} could not store the credential for {server}: {_last_line(said)}")


def credential(username: str, secret: str, origin: str, expires: float | None = None) -> Credential | None:
    """A credential from a pair; the user name `<token>` says that `secret` is an identity token."""
    if not secret or not username:
        return None
    if username == "<token>":
        return Credential("identity token", "", secret, origin, expires)
    return Credential("password", username, secret, origin, expires)


def _run(
    command: Sequence[str], data: bytes, environ: Mapping[str, str], origin: str
) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(  # a fixed program; the server's name goes through stdin
            command, input=data, env=dict(environ), capture_output=True, timeout=_TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise RegistryError(f"{origin} gave no answer within {_TIMEOUT} s", transient=True) from error
    except OSError as error:
        raise RegistryError(f"{origin} cannot be run: {error.strerror}") from error


def _last_line(text: str) -> str:
    """Where programs say what went wrong; libraries they use write above it."""
    return text.strip().rpartition("\n")[2][:300]
