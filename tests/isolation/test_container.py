"""In place is for containers that are thrown away: what is taken for one, and that a developer's machine never is."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from builder.isolation.container import mounts, own_directory, why_not_throw_away
from tests.isolation.places import CHECKOUT

OVERLAY = "1 2 0:40 / / rw - overlay overlay rw\n3 1 0:43 / /proc rw - proc proc rw\n"
DISK = "1 2 8:1 / / rw - ext4 /dev/sda1 rw\n3 1 0:43 / /proc rw - proc proc rw\n"
PODS = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}
CONTAINER = {
    "proc/self/mountinfo": OVERLAY,
    "proc/1/comm": "sh\n",
    "proc/2/comm": "sleep\n",
    "proc/1/cgroup": "0::/\n",
    ".dockerenv": "",
}


def machine(directory: Path, files: Mapping[str, str | None]) -> Path:
    """The files of a root directory that tell what it is; None for one that is not there."""
    for path, text in files.items():
        if text is not None:
            (directory / path).parent.mkdir(parents=True, exist_ok=True)
            (directory / path).write_text(text)
    return directory


@pytest.mark.parametrize(
    ("differs", "environ"),
    [
        ({}, {}),
        ({".dockerenv": None, "run/.containerenv": ""}, {}),
        ({".dockerenv": None}, PODS),
        ({".dockerenv": None, "proc/1/cgroup": "12:cpu:/kubepods/besteffort/pod1\n"}, {}),
        ({".dockerenv": None, "proc/1/cgroup": "1:name=systemd:/docker/0123\n"}, {}),
        ({"proc/self/mountinfo": DISK}, PODS),
        ({"proc/2/comm": None, "proc/1/comm": "executor\n"}, {}),
    ],
    ids=("docker", "podman", "kubernetes", "cgroup", "old docker", "a snapshotter with a disk", "the only process"),
)
def test_a_container_of_a_pipeline(tmp_path: Path, differs: dict[str, str | None], environ: dict[str, str]) -> None:
    assert why_not_throw_away(environ, machine(tmp_path, {**CONTAINER, **differs})) == ""


@pytest.mark.parametrize(
    ("differs", "environ", "reason"),
    [
        ({"proc/2/comm": "kthreadd\n"}, PODS, "it sees the kernel's threads"),
        ({"proc/1/comm": "systemd\n"}, PODS, "systemd is its first process"),
        ({"proc/1/comm": "init\n"}, {}, "init is its first process"),
        ({".dockerenv": None}, {}, "not known to be a container: no mark"),
        ({"proc/self/mountinfo": DISK}, {}, "its root file system is ext4"),
        ({"proc/self/mountinfo": ""}, {}, "its root file system is unknown"),
        ({"run/.toolboxenv": ""}, {}, "a container to work in (toolbox)"),
        ({"run/systemd/system": ""}, {}, "a container to work in (systemd)"),
        ({}, {"CODESPACES": "true"}, "a container to work in (CODESPACES)"),
        ({}, {"REMOTE_CONTAINERS": "true"}, "a container to work in (REMOTE_CONTAINERS)"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_everything_else_is_refused(
    tmp_path: Path, differs: dict[str, str | None], environ: dict[str, str], reason: str
) -> None:
    assert reason in why_not_throw_away(environ, machine(tmp_path, {**CONTAINER, **differs}))


def test_blanks_of_mount_points_are_read(tmp_path: Path) -> None:
    line = r"5 1 0:9 / /a\040b\134c rw shared:1 master:2 - tmpfs x rw" + "\n"
    (mount,) = mounts(machine(tmp_path, {"proc/self/mountinfo": line}))
    assert (mount.point, mount.kind) == ("/a b\\c", "tmpfs")


def test_limpet_has_no_directory_of_its_own_here() -> None:
    home, failure = own_directory(())
    assert home == ""
    assert "Limpet is no directory of its own here" in failure


def test_what_lies_on_mounts_needs_no_directory() -> None:
    assert own_directory(("/",)) == ("", "")


@pytest.mark.skipif(os.path.exists("/limpet"), reason="this is the executor image")
@pytest.mark.parametrize("flags", [[], ["--force"]], ids=" ".join)
def test_this_machine_is_refused_also_with_force(tmp_path: Path, flags: list[str]) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\nRUN true\n")
    before = sorted(os.listdir("/"))
    done = subprocess.run(
        [sys.executable, "-m", "builder", "--isolation=in-place", "--no-push", f"--context={tmp_path}", *flags],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "--isolation=in-place does not work here" in done.stderr
    assert sorted(os.listdir("/")) == before
