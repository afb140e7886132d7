"""A process as the dict that the sandbox program reads, and the directories that it needs meanwhile."""

from __future__ import annotations

import os
import shutil
from base64 import b64encode
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.errors import IsolationError
from builder.isolation import AgentSocket, Bind, Cache, Process, ProcessMount, SecretFile, Tmpfs, syscalls
from builder.isolation.agent import agent_proxy
from builder.isolation.mount_points import MountPoints

MOUNTED_BY_SANDBOX = ("/proc", "/sys", "/dev")


@dataclass(frozen=True, slots=True)
class Abilities:
    """What the sandbox may use. `nested_uid_map` and `nested_gid_map` are "" for no further user namespace."""

    pid_namespace: bool
    overlay_options: str | None  # None: the work directory cannot carry an overlay
    nested_uid_map: str = ""
    nested_gid_map: str = ""


def specification(
    process: Process, points: MountPoints, directory: Path, abilities: Abilities, stack: ExitStack
) -> dict[str, Any]:
    """The specification for `process` in the root of `points`, for the namespaces kind of sandbox.

    `directory` is empty and for this process alone. What has to be undone when it ended is pushed on `stack`.
    Raises IsolationError for a mount that cannot be made.
    """
    for target in MOUNTED_BY_SANDBOX:
        points.make(target, directory=True)
    scratch = directory / "scratch"
    scratch.mkdir()
    mounts: list[ProcessMount] = [*network_files(process), *process.mounts]
    # Outer mount points first, whatever order they were written in.
    mounts.sort(key=lambda mount: len([name for name in mount.target.split("/") if name]))
    values = []
    for number, mount in enumerate(mounts):
        value = _mount(mount, directory / str(number), abilities, stack)
        is_file = value["kind"] == "file" or (value["kind"] == "bind" and not os.path.isdir(value["source"]))
        points.make(mount.target, directory=not is_file)
        values.append(value)
    nested = {"uid_map": abilities.nested_uid_map, "gid_map": abilities.nested_gid_map}
    return {
        **command(process),
        "kind": "namespaces",
        "root": str(points.root),
        "scratch": str(scratch),
        "mounts": values,
        "pid_namespace": abilities.pid_namespace,
        "nested": nested if abilities.nested_uid_map else None,
        "filter": None,
    }


def command(process: Process) -> dict[str, Any]:
    """The part of a specification that every kind of sandbox needs.

    Raises IsolationError when `process` is to have privileges that this process does not have.
    """
    if process.insecure and syscalls.CAP_SYS_ADMIN not in syscalls.effective_capabilities():
        raise IsolationError(
            "RUN --security=insecure needs CAP_SYS_ADMIN, or namespaces to have it in, and this pod allows neither",
            "`limpet doctor` shows what to change in the pod",
        )
    return {
        "argv": list(process.argv),
        "env": dict(process.env),
        "cwd": process.cwd,
        "uid": process.uid,
        "gid": process.gid,
        "groups": list(process.groups),
        "network": process.network,
        "insecure": process.insecure,
        "hostname": process.hostname,
    }


def network_files(process: Process) -> list[SecretFile]:
    """The pod's resolv.conf and hosts: files that a process sees and no layer has."""
    try:
        resolv = Path("/etc/resolv.conf").read_bytes()
    except OSError:
        resolv = b""
    try:
        hosts = Path("/etc/hosts").read_bytes()
    except OSError:
        hosts = b"127.0.0.1\tlocalhost\n::1\tlocalhost\n"
    if hosts and not hosts.endswith(b"\n"):
        hosts += b"\n"
    hosts += b"127.0.0.1\t" + os.fsencode(process.hostname) + b"\n"
    return [SecretFile("/etc/resolv.conf", resolv, mode=0o644), SecretFile("/etc/hosts", hosts, mode=0o644)]


def _mount(mount: ProcessMount, directory: Path, abilities: Abilities, stack: ExitStack) -> dict[str, Any]:
    match mount:
        case Bind(writable=True):
            return _discarded(mount, directory, abilities)
        case Bind():
            return _bind(mount.source, mount.target, read_only=True)
        case Cache():
            return _bind(mount.source, mount.target, mount.read_only)
        case Tmpfs():
            return {"kind": "tmpfs", "target": mount.target, "size": mount.size, "mode": 0o1777}
        case SecretFile():
            data = b64encode(mount.data).decode()
            owner = {"uid": mount.uid, "gid": mount.gid, "mode": mount.mode}
            return {"kind": "file", "target": mount.target, "data": data, **owner}
        case AgentSocket():
            directory.mkdir()
            return _bind(stack.enter_context(agent_proxy(mount, directory)), mount.target, read_only=False)


def _bind(source: Path, target: str, read_only: bool) -> dict[str, Any]:
    return {"kind": "bind", "source": os.path.abspath(source), "target": target, "read_only": read_only}


def _discarded(mount: Bind, directory: Path, abilities: Abilities) -> dict[str, Any]:
    """A place of its own for what is written: an overlay's upper directory, or a whole copy."""
    source = os.path.abspath(mount.source)
    directory.mkdir()
    if os.path.isdir(source) and abilities.overlay_options is not None:
        upper, work = directory / "upper", directory / "work"
        upper.mkdir()
        work.mkdir()
        shutil.copystat(source, upper)
        places: Mapping[str, Any] = {"upper": str(upper), "work": str(work), "options": abilities.overlay_options}
        return {"kind": "discard", "source": source, "target": mount.target, **places}
    copy = directory / "copy"
    copy_of(Path(source), copy)
    return _bind(copy, mount.target, read_only=False)


def copy_of(source: Path, copy: Path) -> None:
    """A copy of file or directory `source` with modes, times and owners. Raises IsolationError."""
    try:
        if source.is_dir():
            shutil.copytree(source, copy, symlinks=True, copy_function=_copy_file)
            for parent, directories, _ in os.walk(source):
                for name in (*directories, "."):
                    path = os.path.join(parent, name)
                    _copy_owner(path, os.path.join(copy, os.path.relpath(path, source)))
        else:
            _copy_file(str(source), str(copy))
    except (OSError, shutil.Error) as error:
        raise IsolationError(f"cannot copy {source} for a mount that may be written to: {error}") from error


def _copy_file(source: str, copy: str) -> None:
    shutil.copy2(source, copy, follow_symlinks=False)
    _copy_owner(source, copy)


def _copy_owner(source: str, copy: str) -> None:
    status = os.lstat(source)
    try:
        os.chown(copy, status.st_uid, status.st_gid, follow_symlinks=False)
    except OSError:
        pass  # an id that does not exist here: the copy is root's
