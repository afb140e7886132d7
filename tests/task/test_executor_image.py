"""The executor image: what is in it, and that it needs nothing around it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path
from typing import Any

import pytest

import builder
from tests.task.conftest import ROOT, build_image

MODULES = "isal, zstandard, yaml, rich, requests, boto3, google.oauth2.service_account, azure.identity"


def run(image: str, *argv: str, user: str = "0", entrypoint: str = "") -> str:
    podman = ["podman", "--runtime", "/usr/sbin/runc", "run", "--rm", "--network", "none", "--user", user]
    podman += ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000"]
    podman += ["--entrypoint", entrypoint] if entrypoint else []
    done = subprocess.run([*podman, image, *argv], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def manifest(layout: Path) -> dict[str, Any]:
    index = json.loads((layout / "index.json").read_text())
    digest = index["manifests"][0]["digest"]
    found: dict[str, Any] = json.loads((layout / "blobs" / digest.replace(":", "/")).read_text())
    return found


@pytest.mark.root
def test_it_is_small(executor_layout: Path) -> None:
    assert sum(layer["size"] for layer in manifest(executor_layout)["layers"]) < 90 * 2**20


@pytest.mark.root
def test_another_build_gives_the_same_layers_and_a_shell(executor_layout: Path, tmp_path: Path) -> None:
    """The debug variant is the executor with one layer more: what was built twice is the same, bit by bit."""
    build_image(tmp_path / "debug", "--target=debug")
    *layers, shell = manifest(tmp_path / "debug")["layers"]
    assert layers == manifest(executor_layout)["layers"]
    with tarfile.open(tmp_path / "debug/blobs" / shell["digest"].replace(":", "/")) as archive:
        members = {member.name.rstrip("/"): member for member in archive}
    assert members["busybox/busybox"].isfile() and members["busybox/sh"].linkname == "busybox"
    assert all(name == "busybox" or name.startswith("busybox/") for name in members)


@pytest.mark.root
def test_kanikos_names_are_there(executor: str) -> None:
    assert f"v{builder.__version__}" in run(executor, "version")  # the image's own entrypoint
    assert "--destination" in run(executor, "--help", entrypoint="/kaniko/executor")
    assert "--cache-dir" in run(executor, "--help", entrypoint="/kaniko/warmer")
    script = "for d in /kaniko/.docker /kaniko/ssl/certs /workspace /cache; do test -d $d || echo no $d; done; pwd"
    assert run(executor, "-c", script, entrypoint="/bin/sh") == "/workspace\n"
    script = "touch /workspace/a /cache/a /tmp/a /var/tmp/a"
    run(executor, "-c", f"{script} && busybox rm -f {script[6:]}", entrypoint="/bin/sh", user="1000")


@pytest.mark.root
def test_another_architecture_is_planned(tmp_path: Path) -> None:
    """Nothing in its Dockerfile is about an architecture: the plan for arm64 resolves, with a base for arm64."""
    context = tmp_path / "base"
    context.mkdir()
    (context / "Dockerfile").write_text("FROM scratch\nENV PATH=/bin\n")
    limpet = [sys.executable, "-m", "builder"]
    arm = "--custom-platform=linux/arm64"
    layout = f"--oci-layout-path={tmp_path}/layout"
    subprocess.run([*limpet, f"--context={context}", "--no-push", arm, layout], cwd=ROOT, check=True)
    argv = [*limpet, "plan", arm, "--context=.", "--dockerfile=image/Dockerfile", "--build-arg=BASE=debian"]
    argv += [f"--build-context=debian=oci-layout://{tmp_path}/layout", f"--build-context=wheels={context}"]
    planned = json.loads(subprocess.run([*argv, "--format=json"], cwd=ROOT, check=True, capture_output=True).stdout)
    assert "linux/arm64" in json.dumps(planned) and "amd64" not in json.dumps(planned)
    assert not re.search(
        r"x86.64|amd64", (ROOT / "image/Dockerfile").read_text() + (ROOT / "image/assemble.py").read_text()
    )


@pytest.mark.parametrize("user", ["0", "1000", "54321"])
@pytest.mark.root
def test_every_program_runs_as_any_user(executor: str, user: str) -> None:
    assert f"v{builder.__version__}" in run(executor, "version", user=user)
    assert run(executor, "--version", entrypoint="/limpet/bin/git", user=user).startswith("git version")
    assert run(executor, "version", entrypoint="/limpet/bin/git-lfs", user=user).startswith("git-lfs/")
    run(executor, "-c", f"import {MODULES}", entrypoint="/limpet/bin/python3", user=user)


@pytest.mark.root
def test_nothing_of_limpet_is_outside_of_its_directory(executor: str) -> None:
    text = run(executor, "-c", "cat /proc/self/maps; exec python3 -c 'print(open(\"/proc/self/maps\").read())'",
               entrypoint="/bin/sh")  # fmt: skip
    assert "/limpet/bin/python3" in text
    assert {path for path in re.findall(r"(/\S+)$", text, re.M) if not path.startswith("/limpet/")} == set()


def test_every_library_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *(line for name in ("s3", "gcs", "azure") for line in extras[name])]
    text = (ROOT / "image/requirements.txt").read_text()
    pinned = set(re.findall(r"^([a-z0-9-]+)==[\w.]+$", text, re.M))
    assert {re.split(r"[<>=\[]", line)[0] for line in wanted} <= pinned
