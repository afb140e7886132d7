"""`limpet login`: put a registry's user name and password where builds look for them.

The registry is not asked. The place is `config.json` in $DOCKER_CONFIG (else ~/.docker), or the credential helper
that this file names for the registry.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from builder.cli.arguments import Arguments
from builder.cli.output import Output
from builder.errors import BuildError, UsageError

_DOCKER_HUB = "https://index.docker.io/v1/"  # the key that docker itself uses
_DOCKER_HUB_NAMES = ("docker.io", "index.docker.io", "registry-1.docker.io")


def run(arguments: Arguments, env: Mapping[str, str], output: Output) -> int:
    """Store the credential. Raises UsageError and BuildError."""
    if len(arguments.positionals) != 1:
        raise UsageError(
            "limpet login: expected one registry", "limpet login --username NAME --password-stdin REGISTRY"
        )
    key = _key(arguments.positionals[0])
    username, password = arguments.text("username"), _password(arguments)
    output.redactor.add(password)
    if not username:
        raise UsageError("limpet login: no user name", "give --username")
    directory = Path(env.get("DOCKER_CONFIG") or Path(env.get("HOME") or "/", ".docker"))
    path = directory / "config.json"
    config = _read(path)
    helper = (config.get("credHelpers") or {}).get(key) or config.get("credsStore")
    if helper:
        _store(helper, key, username, password)
        output.say(f"stored the credential for {key} with docker-credential-{helper}")
        return 0
    auth = base64.b64encode(f"{username}:{password}".encode()).decode()
    config.setdefault("auths", {})[key] = {"auth": auth}
    _write(path, config)
    output.say(f"stored the credential for {key} in {path}")
    return 0


def _key(registry: str) -> str:
    host = registry.partition("://")[2] or registry
    host = host.partition("/")[0]
    if not host:
        raise UsageError(f"limpet login: {registry!r} is no registry", "for example registry.example.com:5000")
    return _DOCKER_HUB if host in _DOCKER_HUB_NAMES else host


def _password(arguments: Arguments) -> str:
    if not arguments.is_set("password-stdin"):
        password = arguments.text("password")
    elif arguments.text("password"):
        raise UsageError("--password and --password-stdin exclude each other", "use --password-stdin")
    else:
        password = sys.stdin.read().removesuffix("\n").removesuffix("\r")
    if not password:
        raise UsageError("limpet login: no password", "write it to standard input with --password-stdin")
    return password


def _read(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        fact = error.strerror if isinstance(error, OSError) else "not JSON"
        raise BuildError(
            f"cannot read {path}: {fact}", "repair it, or set DOCKER_CONFIG to another directory"
        ) from None
    if not isinstance(config, dict):
        raise BuildError(f"cannot read {path}: not a JSON object", "set DOCKER_CONFIG to another directory")
    return config


def _write(path: Path, config: Mapping[str, Any]) -> None:
    """Replace the file in one step: a reader sees the old or the new one, and nobody else may read it."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".config.json.")
        try:
            with open(descriptor, "w", encoding="utf-8") as stream:
                json.dump(config, stream, indent="\t")
            os.replace(temporary, os.path.realpath(path))
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise BuildError(
            f"cannot write {path}: {error.strerror}", "set DOCKER_CONFIG to a directory that can be written"
        ) from None


def _store(helper: str, key: str, username: str, password: str) -> None:
    program = f"docker-credential-{helper}"
    value = json.dumps({"ServerURL": key, "Username": username, "Secret": password})
    try:
        result = subprocess.run([program, "store"], input=value, text=True, capture_output=True, check=False)
    except OSError as error:
        raise BuildError(
            f"cannot run {program}: {error.strerror}", "install it, or remove it from config.json"
        ) from None
    if result.returncode:
        raise BuildError(f"{program} store: exit code {result.returncode}", "run it by hand to see why")
