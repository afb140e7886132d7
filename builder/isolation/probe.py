"""What can be done here, found out by doing it: in a child, so that this process stays as it is."""

from __future__ import annotations

import json
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.errors import IsolationError
from builder.isolation import syscalls
from builder.isolation.container import Place, mounts, own_directory, why_not_throw_away
from builder.isolation.enter import IdMap, enter
from builder.isolation.lay_in import DEVICES
from builder.isolation.overlay import OverlayKind

PROBE = ".probe-"  # how the names of directories begin that are tried in a place which others use, too


@dataclass(frozen=True, slots=True)
class NamespacesProbe:
    """`failure` is "" when namespaces can be entered; only then the rest means something.

    `no_overlay` says why the work directory cannot carry an overlay, "" when it can.
    """

    failure: str
    hint: str = ""
    no_overlay: str = ""
    fresh_proc: bool = False
    uid_map: IdMap = ()

    @property
    def works(self) -> bool:
        return not self.failure


def probe_namespaces(work_dir: Path) -> NamespacesProbe:
    """Enter namespaces in a child process and try what `builder.isolation.namespaces` needs. No thread may exist."""
    return NamespacesProbe(**_in_child(lambda: _try_namespaces(work_dir)))


def probe_chroot(work_dir: Path) -> str:
    """Why chroot cannot be used, "" when it can."""
    if os.geteuid() != 0:
        return f"it needs uid 0, and this is uid {os.geteuid()}"

    def attempt() -> dict[str, Any]:
        try:
            os.chroot(work_dir)
        except OSError as error:
            return {"failure": f"chroot: {error.strerror}"}
        return {"failure": _try_device("/")}

    return str(_in_child(attempt)["failure"])


def probe_in_place(work_dir: Path, environ: Mapping[str, str], anywhere: bool = False) -> tuple[Place | None, str]:
    """Where Limpet is, for `builder.isolation.in_place`, or why this isolation cannot be used. Changes nothing.

    `anywhere`: not only in a container that is thrown away.
    """
    if os.geteuid() != 0:
        return None, f"it needs uid 0, and this is uid {os.geteuid()}"
    failure = "" if anywhere else why_not_throw_away(environ)
    if failure:
        return None, failure
    points = tuple(sorted({mount.point for mount in mounts()} - {"/"}))
    home, failure = own_directory(points)
    if failure:
        return None, failure
    if not os.access("/", os.W_OK):
        return None, "the root directory cannot be written: it is read-only, or DAC_OVERRIDE is missing"
    place = Place(points, home)
    if not place.holds(work_dir):
        return None, f"the work directory {work_dir} would be swapped away; let --work-dir name a volume"
    return place, ""


def _try_device(directory: str) -> str:
    """Why there can be no device nodes in `directory`, "" when they can be made and used."""
    place = tempfile.mkdtemp(prefix="probe-", dir=directory)
    try:
        os.mknod(f"{place}/null", stat.S_IFCHR | 0o600, os.makedev(*DEVICES["null"]))
        os.close(os.open(f"{place}/null", os.O_WRONLY))
        return ""
    except OSError as error:
        return f"device nodes cannot be made and used: {error.strerror}"
    finally:
        shutil.rmtree(place)


def _in_child(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The result of `work`, done in a forked child."""
    result, result_end = os.pipe()
    child = os.fork()
    if child == 0:
        value: dict[str, Any] = {"failure": "the probe ended without a result"}
        try:
            value = work()
        except (OSError, ValueError) as error:
            value = {"failure": str(error)}
        finally:
            os.write(result_end, json.dumps(value).encode())
            os._exit(0)
    os.close(result_end)
    with open(result, "rb") as stream:
        said = stream.read()
    os.waitpid(child, 0)
    value = json.loads(said or b'{"failure": "the probe died"}')
    if "uid_map" in value:
        value["uid_map"] = tuple(tuple(line) for line in value["uid_map"])
    return dict(value)


def _try_namespaces(work_dir: Path) -> dict[str, Any]:
    try:
        entered = enter()
    except IsolationError as error:
        return {"failure": error.message, "hint": error.hint}
    place = tempfile.mkdtemp(prefix="probe-", dir=work_dir)
    try:
        no_overlay = _try_overlay(Path(place), OverlayKind("trusted" if entered.initial else "user"))
        return {
            "failure": "",
            "no_overlay": no_overlay,
            "fresh_proc": _try_fresh_proc(place),
            "uid_map": entered.uid_map,
        }
    finally:
        shutil.rmtree(place, ignore_errors=True)


def try_overlay_on(directory: Path, work_dir: Path, kind: OverlayKind) -> str:
    """Why directories in `directory` cannot be lower ones of overlays in `work_dir`, "" when they can.

    This process is in its namespaces already.
    """
    place = Path(tempfile.mkdtemp(prefix="probe-", dir=work_dir))
    lower = directory
    try:
        if os.access(directory, os.W_OK):
            lower = Path(tempfile.mkdtemp(prefix=PROBE, dir=directory))
            (lower / "there").mkdir()
        return _try_overlay(place, kind, lower)
    except OSError as error:
        return str(error)
    finally:
        shutil.rmtree(place, ignore_errors=True)
        if lower != directory:
            shutil.rmtree(lower, ignore_errors=True)


def _try_overlay(place: Path, kind: OverlayKind, below: Path | None = None) -> str:
    """Mount one, and remove a directory of its lower layer: without the right options that fails with EIO.

    `below` is the lower layer, by default a new one; without a directory called `there` it is mounted only.
    """
    for name in ("upper", "work", "merged", *(() if below else ("lower/there",))):
        (place / name).mkdir(parents=True)
    merged = str(place / "merged")
    if below:
        (place / "lower").symlink_to(below)
    data = "lowerdir=lower,upperdir=upper,workdir=work" + kind.options
    try:
        syscalls.mount_from(str(place), "overlay", merged, "overlay", data)
    except OSError as error:
        return f"overlay mount: {error.strerror}"
    try:
        if os.path.isdir(f"{merged}/there"):
            os.rmdir(f"{merged}/there")
        os.mkdir(f"{merged}/there")
        return ""
    except OSError as error:
        return f"overlay mount does not work: {error.strerror}"
    finally:
        syscalls.unmount(merged)


def _try_fresh_proc(place: str) -> bool:
    """Whether a new pid namespace can have its own /proc: not where parts of the pod's are masked."""
    child = os.fork()
    if child == 0:
        try:
            syscalls.unshare(syscalls.CLONE_NEWPID)
            grandchild = os.fork()
            if grandchild == 0:
                syscalls.unshare(syscalls.CLONE_NEWNS)
                syscalls.mount("proc", place, "proc")
                os._exit(0)
            os._exit(os.waitstatus_to_exitcode(os.waitpid(grandchild, 0)[1]))
        except OSError:
            os._exit(1)
    return os.waitpid(child, 0)[1] == 0
