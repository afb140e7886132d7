"""The executor image: what is in it, and that it needs nothing around it."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

import builder
from tests.task.conftest import ROOT

MODULES = "isal, zstandard, yaml, rich, requests, boto3, google.cloud.storage, azure.storage.blob, azure.identity"


def run(image: str, *argv: str, user: str = "0", entrypoint: str = "") -> str:
    podman = ["podman", "--runtime", "/usr/sbin/runc", "run", "--rm", "--network", "none", "--user", user]
    podman += ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000"]
    podman += ["--entrypoint", entrypoint] if entrypoint else []
    done = subprocess.run([*podman, image, *argv], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.root
def test_it_is_small(executor_layout: Path) -> None:
    index = json.loads((executor_layout / "index.json").read_text())
    digest = index["manifests"][0]["digest"]
    manifest = json.loads((executor_layout / "blobs" / digest.replace(":", "/")).read_text())
    assert sum(layer["size"] for layer in manifest["layers"]) < 90 * 2**20


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
