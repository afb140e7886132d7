"""What kind of container this process is in, and where in it Limpet lives."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

# What container runtimes leave on the disk, and what their cgroups are called.
_MARKS = (".dockerenv", "run/.containerenv", "var/run/secrets/kubernetes.io/serviceaccount")
_CGROUPS = re.compile(r"kubepods|docker|containerd|libpod|crio|buildkit|garden")
# Containers that somebody works in: they outlive the build.
_LIVED_IN = {
    "run/.toolboxenv": "toolbox",
    "run/systemd/system": "systemd",
    "run/host/container-manager": "a container manager",
    ".flatpak-info": "flatpak",
}
_LIVED_IN_VARIABLES = ("CODESPACES", "REMOTE_CONTAINERS", "DEVCONTAINER", "DISTROBOX_ENTER_PATH", "TOOLBOX_PATH")
_LAYERED = ("overlay", "fuse.fuse-overlayfs", "aufs")
# Directories of every distribution: Limpet in one of them would be swapped away with it.
_SHARED = frozenset(("/", "/usr", "/usr/local", "/usr/lib", "/opt", "/home", "/root", "/var", "/srv", "/tmp"))

OWN_PREFIX = ".limpet-"  # of the directories in / that hold a root while it is not shown


@dataclass(frozen=True, slots=True)
class Mounted:
    """A mount: where, and of which type of file system."""

    point: str
    kind: str


@dataclass(frozen=True, slots=True)
class Place:
    """Where Limpet is: `points` are what is mounted below /, `home` its own directory ("" if that is on a mount).

    `credentials` are files that no step should find.
    """

    points: tuple[str, ...]
    home: str
    credentials: tuple[Path, ...] = ()

    def kept(self) -> frozenset[str]:
        """The paths, relative to /, that stay where they are."""
        own = [name for name in os.listdir("/") if name.startswith(OWN_PREFIX)]
        return frozenset([*(point.lstrip("/") for point in self.points), *filter(None, [self.home.lstrip("/")]), *own])

    def holds(self, path: Path) -> bool:
        """Whether `path` stays where it is."""
        return any(is_below(os.path.realpath(path), kept) for kept in (*self.points, *filter(None, [self.home])))


def mounts(machine: Path = Path("/")) -> list[Mounted]:
    """Everything that is mounted, by proc_pid_mountinfo(5)."""
    found = []
    for line in (machine / "proc/self/mountinfo").read_bytes().splitlines():
        fields, _, rest = line.partition(b" - ")
        point = fields.split()[4].decode("unicode_escape").encode("latin-1")  # blanks are octal escapes
        found.append(Mounted(os.fsdecode(point), rest.split()[0].decode()))
    return found


def why_not_throw_away(environ: Mapping[str, str], machine: Path = Path("/")) -> str:
    """Why this is not surely a container that is thrown away after the build; "" when it is.

    Runtimes leave marks, and marks are copied to machines along with images: without any sign of the contrary, and
    with a root file system of layers (or the marks of Kubernetes), they are believed.
    """
    if _text(machine / "proc/2/comm") == "kthreadd":
        return "this is no container, or one that shares the machine's processes: it sees the kernel's threads"
    first = _text(machine / "proc/1/comm")
    if first in ("systemd", "init"):
        return f"this container lives on: {first} is its first process"
    lived_in = [name for path, name in _LIVED_IN.items() if (machine / path).exists()]
    lived_in += [name for name in _LIVED_IN_VARIABLES if environ.get(name)]
    if lived_in:
        return f"this is a container to work in ({lived_in[0]})"
    cgroup = _text(machine / "proc/1/cgroup")
    in_kubernetes = "KUBERNETES_SERVICE_HOST" in environ or "kubepods" in cgroup
    if not (in_kubernetes or _CGROUPS.search(cgroup) or any((machine / mark).exists() for mark in _MARKS)):
        return "this is not known to be a container: no mark of Kubernetes, docker, podman or containerd"
    root = next((mount.kind for mount in reversed(mounts(machine)) if mount.point == "/"), "unknown")
    if root not in _LAYERED and not in_kubernetes:
        return f"this is not known to be a container: its root file system is {root}"
    return ""


def own_directory(points: Collection[str]) -> tuple[str, str]:
    """The directory that Limpet lives in with all that it needs to run, and why there is none.

    What lies on one of the mount `points` needs no such directory; "" when nothing does.
    """
    program = os.path.realpath(sys.executable)
    parts = {program, *_loaded(), *filter(os.path.exists, map(os.path.realpath, filter(None, sys.path)))}
    parts = {part for part in parts if not any(is_below(part, point) for point in points)}
    if not parts:
        return "", ""
    home = str(Path(program).parent.parent)
    if home in _SHARED or program not in parts:
        return "", f"Limpet is no directory of its own here: it runs from {program}"
    outside = sorted(part for part in parts if not is_below(part, home))
    if outside:
        return "", f"Limpet is no directory of its own here: it uses {outside[0]}"
    return home, ""


def is_below(path: str, directory: str) -> bool:
    """Whether `path` is `directory` or inside it; both absolute."""
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def _loaded() -> set[str]:
    """The files that are mapped into this process: its loader and libraries."""
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as lines:
        fields = [line.rstrip("\n").split(maxsplit=5) for line in lines]
    paths = {field[5] for field in fields if len(field) == 6}
    return {path for path in paths if path.startswith("/") and not path.startswith(("/dev/", "/memfd:"))}


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
