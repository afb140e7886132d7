"""`--secret` and `--ssh`: buildx's grammar, and the values read once, before anything else runs."""

from __future__ import annotations

import csv
import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

from builder.errors import UsageError

MAX_SECRET = 500 * 1024  # bytes; BuildKit's limit
_GRAMMAR = "write --secret id=ID[,src=PATH][,env=NAME][,type=file|env]"


def read_secrets(specs: Sequence[str], env: Mapping[str, str]) -> dict[str, bytes]:
    """The values of all `--secret` flags by id, read now from files and environment.

    Raises UsageError for a malformed or repeated spec, an unset variable, or a file that cannot be read or is
    larger than 500 KiB.
    """
    found: dict[str, bytes] = {}
    for spec in specs:
        fields = _fields(spec)
        name = fields["id"]
        if name in found:
            raise UsageError(f"--secret: id {name} is given twice", "give each id once")
        found[name] = _read(name, fields, env)
    return found


def read_directory(path: str) -> dict[str, bytes]:
    """The files of a directory by name, as Kubernetes mounts a Secret: `..data` and other hidden names are not files.

    "" is no directory. Raises UsageError when it cannot be read or a file is larger than 500 KiB.
    """
    if not path:
        return {}
    try:
        names = sorted(name for name in os.listdir(path) if not name.startswith("."))
    except OSError as error:
        raise UsageError(f"--secrets-dir: {path}: {error.strerror}", "give the directory of a mounted Secret") from None
    files = [name for name in names if not os.path.isdir(os.path.join(path, name))]
    return {name: _read(name, {"src": os.path.join(path, name)}, {}) for name in files}


def secret_files(specs: Sequence[str], directory: str) -> tuple[Path, ...]:
    """The files that `read_secrets` and `read_directory` read, and perhaps some that are not there."""
    named = [_fields(spec) for spec in specs]
    paths = [Path(fields.get("src") or fields["id"]) for fields in named if "env" not in fields]
    return (*paths, *(Path(directory, name) for name in (os.listdir(directory) if directory else ())))


def _fields(spec: str) -> dict[str, str]:
    """One spec's fields; `source` and `src` are the same. Values are paths and names, never the secret itself."""
    try:
        parts = next(csv.reader([spec], strict=True), [])
    except csv.Error as error:
        raise UsageError(f"--secret: {error}", _GRAMMAR) from None
    fields: dict[str, str] = {}
    for part in parts:
        key, equals, value = part.partition("=")
        key = {"source": "src"}.get(key.lower(), key.lower())
        if not equals:
            raise UsageError("--secret: a field without `=`", _GRAMMAR)
        if key not in ("id", "src", "env", "type"):
            raise UsageError(f"--secret: unknown field {key}", _GRAMMAR)
        if key in fields:
            raise UsageError(f"--secret: field {key} is given twice", _GRAMMAR)
        fields[key] = value
    if not fields.get("id"):
        raise UsageError("--secret: no id", _GRAMMAR)
    kind = fields.get("type", "")
    if kind not in ("", "file", "env"):
        raise UsageError(f"--secret: id {fields['id']}: unknown type {kind}", "type is file or env")
    if "src" in fields and "env" in fields:
        raise UsageError(f"--secret: id {fields['id']}: src and env exclude each other", _GRAMMAR)
    if kind == "file" and "env" in fields:
        raise UsageError(f"--secret: id {fields['id']}: type=file and env exclude each other", _GRAMMAR)
    if kind == "env" and "src" in fields:
        fields["env"] = fields.pop("src")
    return fields


def _read(name: str, fields: Mapping[str, str], env: Mapping[str, str]) -> bytes:
    variable, path = fields.get("env", ""), fields.get("src", "")
    if not variable and not path:
        if fields.get("type") == "env" or (fields.get("type", "") == "" and name in env):
            variable = name
        else:
            path = name
    if variable:
        if variable not in env:
            raise UsageError(f"--secret: id {name}: variable {variable} is not set", "set it, or give src=PATH")
        return env[variable].encode(errors="surrogateescape")
    try:
        with open(path, "rb") as stream:
            value = stream.read(MAX_SECRET + 1)
    except OSError as error:
        raise UsageError(f"--secret: id {name}: {path}: {error.strerror}", "give src=PATH or env=NAME") from None
    if len(value) > MAX_SECRET:
        raise UsageError(f"--secret: id {name}: {path} is larger than 500 KiB", "mount a large file as a bind mount")
    return value


def agent_sockets(specs: Sequence[str], env: Mapping[str, str]) -> dict[str, Path]:
    """The agent sockets of all `--ssh` flags by id: `ID` (SSH_AUTH_SOCK) or `ID=SOCKET`."""
    found: dict[str, Path] = {}
    for spec in specs:
        name, _, path = spec.partition("=")
        if name in found:
            raise UsageError(f"--ssh: id {name} is given twice", "give each id once")
        if not path:
            path = env.get("SSH_AUTH_SOCK", "")
            if not path:
                raise UsageError(
                    f"--ssh: id {name}: SSH_AUTH_SOCK is not set", "start ssh-agent, or write --ssh ID=SOCKET"
                )
        try:
            is_socket = stat.S_ISSOCK(os.stat(path).st_mode)
        except OSError as error:
            raise UsageError(
                f"--ssh: id {name}: {path}: {error.strerror}", "give the path of an agent's socket"
            ) from None
        if not is_socket:
            raise UsageError(
                f"--ssh: id {name}: {path} is no agent socket",
                "load the key into an agent (ssh-agent, ssh-add) and forward its socket",
            )
        found[name] = Path(path)
    return found
