"""Where scenarios are carried out: kinds of users, containers and work directories, each a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import site
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[2]
IN_EXECUTOR = "/limpet/checkout"
ANYONE = 54321  # a uid that no machine knows
SUBORDINATE = 54322
# What Kubernetes leaves to a container that asks for nothing.
CAPABILITIES = (
    *("chown", "dac_override", "fsetid", "fowner", "mknod", "net_raw", "setgid", "setuid", "setfcap", "setpcap"),
    *("net_bind_service", "sys_chroot", "kill", "audit_write"),
)


class Absent(Exception):
    """This machine cannot make the place; the text says why."""


@dataclass(frozen=True)
class Kind:
    """How to start a process in a place: `command` gets the work directory and returns what comes before python."""

    isolation: str
    command: Callable[[Path], Sequence[str]]
    as_anyone: bool = False  # needs an interpreter outside of root's home
    proc: bool = True
    hidden: bool = True
    fresh_proc: bool = True  # and a pid namespace
    single_id: bool = False
    devices: bool = False  # mknod makes device nodes
    patient: bool = False  # another kind stands for this one in tests that take seconds
    executor: bool = False  # `command` starts the executor image: it has Python, the checkout and busybox in /limpet


class Place:
    """A running driver."""

    def __init__(self, kind: Kind, work: Path, image: str) -> None:
        self.kind = kind
        self.work = work
        self._directory = work / "volume/w"
        packages = site.getsitepackages()[0]
        if kind.executor:
            python, directory, tools = "/limpet/bin/python3", "/limpet/volume/w", "/limpet/volume/bin"
            path = f"{IN_EXECUTOR}:{packages.replace(str(CHECKOUT), IN_EXECUTOR)}"
        else:
            python = interpreter_for_anyone() if kind.as_anyone else sys.executable
            directory, tools, path = str(self._directory), "/usr/bin:/bin", f"{CHECKOUT}:{packages}"
        environment = [f"{tools.partition(':')[0]}/env", "-i", f"PYTHONPATH={path}", f"PATH={tools}"]
        arguments = ["-B", "-m", "tests.isolation.driver", kind.isolation, directory]
        self._process = subprocess.Popen(
            [*kind.command(work), *([image] if kind.executor else []), *environment, python, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=CHECKOUT,
            text=True,
        )
        self.start: dict[str, Any] = self._answer()

    def __call__(self, scenario: str, **arguments: Any) -> Any:
        """The scenario's value; nothing but the layer store may be left of it."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"scenario": scenario, "arguments": arguments}) + "\n")
        self._process.stdin.flush()
        answer = self._answer()
        assert "error" not in answer, answer["error"]
        assert set(answer["left"]) <= {"layers"}
        assert answer["mounts"] == []
        return answer["value"]

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        code = self._process.wait()
        assert code == 0, f"the driver ended with {code}"
        assert not self._directory.exists()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the driver died: {self._process.wait()}"
        return dict(json.loads(line))


@contextmanager
def opened(kind: Kind, image: str = "") -> Iterator[Place]:
    """A place of `kind`, with a work directory that its user may write to; `image` is the executor. Raises Absent."""
    work = Path(tempfile.mkdtemp(prefix="limpet-isolation-", dir="/var/tmp"))
    try:
        work.chmod(0o755)
        (work / "volume").mkdir()
        (work / "volume").chmod(0o777)
        place = Place(kind, work, image)
        try:
            yield place
        finally:
            place.close()
    finally:
        shutil.rmtree(work)


@cache
def interpreter_for_anyone() -> str:
    """A Python that every uid and a container with /usr can start, with this project's dependencies. Raises Absent."""
    version = ".".join(map(str, sys.version_info[:2]))
    packages = site.getsitepackages()[0]
    text = f"import sys; assert sys.version.startswith('{version}.'); import isal, zstandard, requests, hypothesis"
    for python in (os.path.realpath(sys.executable), f"/usr/bin/python{version}", "/usr/bin/python3"):
        if python.startswith("/usr/") and os.path.exists(python):
            done = subprocess.run(
                [*as_uid(ANYONE), "/usr/bin/env", "-i", f"PYTHONPATH={packages}", python, "-c", text],
                capture_output=True,
            )
            if done.returncode == 0 and _readable():
                return python
    raise Absent(f"no Python {version} under /usr that other users can start with {packages} and {CHECKOUT}")


def _readable() -> bool:
    return subprocess.run([*as_uid(ANYONE), "/usr/bin/test", "-r", str(Path(__file__))]).returncode == 0


def as_uid(uid: int) -> list[str]:
    return ["/usr/bin/setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]


def bounded() -> list[str]:
    """Root with the capabilities of a container."""
    return ["/usr/bin/setpriv", "--bounding-set=-all," + ",".join(f"+{name}" for name in CAPABILITIES)]


def _on_overlay(work: Path) -> list[str]:
    """A work directory that lies on an overlay, as a container's own file system does."""
    for name in ("l", "u", "x"):
        (work / name).mkdir()
    script = 'cd "$0" && mount -t overlay overlay -o lowerdir=l,upperdir=u,workdir=x volume && cd / && exec "$@"'
    return ["/usr/bin/unshare", "-m", "/bin/sh", "-c", script, str(work)]


def _with_subordinate_ids(work: Path) -> list[str]:
    """A user with subordinate ids, whom only this process's mount namespace knows."""
    if shutil.which("newuidmap") is None:
        raise Absent("newuidmap is not installed (Debian: uidmap)")
    files = {
        "/etc/passwd": f"limpettest:x:{SUBORDINATE}:{SUBORDINATE}::/:/bin/sh\n",
        "/etc/subuid": "limpettest:3000000:65536\n",
        "/etc/subgid": "limpettest:3000000:65536\n",
    }
    script = []
    for name, line in files.items():
        copy = work / Path(name).name
        before = Path(name).read_text() if Path(name).exists() else ""
        copy.write_text(before + line)
        if not Path(name).exists():
            raise Absent(f"{name} is not there")
        script.append(f"mount --bind {copy} {name}")
    return ["/usr/bin/unshare", "-m", "/bin/sh", "-c", " && ".join([*script, 'exec "$@"']), "-", *as_uid(SUBORDINATE)]


def _pod(seccomp: Callable[[], str], inside: Sequence[str], *more: str) -> Callable[[Path], list[str]]:
    """A container like a pod's, with this machine's /usr and the checkout in it and the work directory as a volume.

    It has the capabilities `more` besides the usual ones.
    """

    def command(work: Path) -> list[str]:
        if shutil.which("podman") is None or not os.path.exists("/usr/sbin/runc"):
            raise Absent("podman and runc are not installed")
        interpreter_for_anyone()
        root = work / "pod"
        for name in ("usr", "etc", "tmp", "proc", "sys", "dev", "var/tmp", "run"):
            (root / name).mkdir(parents=True)
        for name in ("bin", "sbin", "lib", "lib64"):
            if os.path.islink(f"/{name}"):
                (root / name).symlink_to(os.readlink(f"/{name}"))
        (root / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n")
        (root / "etc/subuid").touch()
        (root / "etc/ld.so.cache").write_bytes(Path("/etc/ld.so.cache").read_bytes())
        # "bind": a /proc that another test has mounted somewhere in the checkout would allow this pod a fresh one.
        volumes = [f"{work}/volume:{work}/volume", "/usr:/usr:ro", f"{CHECKOUT}:{CHECKOUT}:ro,bind"]
        volumes += _packages_volume()
        podman = [*_podman(seccomp(), volumes), *(f"--cap-add={name}" for name in more)]
        return [*podman, "--workdir", str(CHECKOUT), "--rootfs", str(root), *inside]

    return command


def _executor(work: Path) -> list[str]:
    """A pod of the executor image: everything that is not Limpet's is the image's, on the container's own overlay."""
    if shutil.which("podman") is None or not os.path.exists("/usr/sbin/runc"):
        raise Absent("podman and runc are not installed")
    if sys.version_info[:2] != (3, 11) or _packages_volume():
        raise Absent("the executor's Python is 3.11, and this one's packages are not for it, or elsewhere")
    tools = work / "volume/bin"
    tools.mkdir()
    shutil.copy("/bin/busybox", tools)
    for name in ("env", "grep", "pgrep", "rm", "sleep"):
        (tools / name).symlink_to("busybox")
    volumes = [f"{work}/volume:/limpet/volume", f"{CHECKOUT}:{IN_EXECUTOR}:ro,bind"]
    return [*_podman(_profile(), volumes), "--workdir", IN_EXECUTOR, "--entrypoint="]


def _podman(seccomp: str, volumes: Sequence[str]) -> list[str]:
    return [
        *("podman", "--runtime", "/usr/sbin/runc", "run", "--rm", "-i", "--network", "host"),
        *("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000", "--cap-drop", "all"),
        *("--cap-add", ",".join(name.upper() for name in CAPABILITIES), "--security-opt", f"seccomp={seccomp}"),
        *(part for volume in volumes for part in ("-v", volume)),
    ]


def _packages_volume() -> list[str]:
    packages = Path(site.getsitepackages()[0])
    inside = packages.is_relative_to(CHECKOUT) or packages.is_relative_to("/usr")
    return [] if inside else [f"{packages}:{packages}:ro"]


def _profile() -> str:
    shared = Path(os.environ.get("LIMPET_SHARED", CHECKOUT.parent / "shared"))
    profile = shared / "tools/pod-seccomp.json"
    if not profile.exists():
        raise Absent(f"{profile} is not there")
    return str(profile)


KINDS = {
    "root": Kind("namespaces", lambda work: [], devices=True),
    "root-with-container-capabilities": Kind("namespaces", lambda work: bounded(), patient=True),
    "work-directory-on-overlay": Kind("namespaces", _on_overlay, devices=True, patient=True),
    "subordinate-ids": Kind("namespaces", _with_subordinate_ids, as_anyone=True, patient=True),
    "one-id": Kind("namespaces", lambda work: as_uid(ANYONE), as_anyone=True, single_id=True, patient=True),
    "chroot": Kind(
        "chroot", lambda work: bounded(), proc=False, hidden=False, fresh_proc=False, devices=True, patient=True
    ),
    "pod-unconfined-root": Kind(
        "namespaces", _pod(lambda: "unconfined", ["/usr/bin/env"]), as_anyone=True, fresh_proc=False
    ),
    "pod-unconfined-one-id": Kind(
        "namespaces",
        _pod(lambda: "unconfined", as_uid(ANYONE)),
        as_anyone=True,
        fresh_proc=False,
        single_id=True,
        patient=True,
    ),
    "pod-default-root": Kind(
        "chroot",
        _pod(_profile, ["/usr/bin/env"]),
        as_anyone=True,
        proc=False,
        hidden=False,
        fresh_proc=False,
        devices=True,
    ),
    "pod-default-root-with-sys-admin": Kind(  # whose profile allows mount and refuses pivot_root
        "namespaces",
        _pod(_profile, ["/usr/bin/env"], "SYS_ADMIN", "NET_ADMIN"),
        as_anyone=True,
        devices=True,
        patient=True,
    ),
    "pod-default-root-in-place": Kind(
        "in-place", _executor, hidden=False, fresh_proc=False, devices=True, executor=True
    ),
}
