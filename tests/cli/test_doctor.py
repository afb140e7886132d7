"""`limpet doctor` on this machine; tests/task has it in pods."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.cli.conftest import Limpet
from tests.servers.registry import docker_registry, missing
from tests.task.conftest import docker_config

needs_registry = pytest.mark.skipif(bool(missing()), reason="docker-registry is not installed")


def test_it_finds_what_a_build_would_take_and_leaves_nothing(limpet: Limpet, tmp_path: Path) -> None:
    work = tmp_path / "not/there"
    found = limpet("doctor", "--format=json", f"--work-dir={work}")
    assert not work.parent.exists()
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()
    report = json.loads(found.stdout)
    assert found.returncode == 0 and report["healthy"]
    assert (report["pod"]["uid"], report["work_directory"]["path"]) == (os.geteuid(), str(work))
    assert report["work_directory"]["free_bytes"] > 0
    works = [each["name"] for each in report["isolations"] if each["works"]]
    assert report["isolation"] == {"requested": "auto", "taken": works[0], "works": True}
    assert works[-1] == "none"


def test_text_says_the_same(limpet: Limpet) -> None:
    text = limpet("doctor").stdout
    report = json.loads(limpet("doctor", "--format=json").stdout)
    taken = report["isolation"]["taken"]
    assert f"a build takes │ {taken}" in text
    for row in ("uid", "capabilities", "seccomp", "user namespaces", "subordinate ids", "overlay on it", "free space"):
        assert f"│ {row} " in text


@needs_registry
def test_a_destination_is_asked_and_the_credential_is_not_told(limpet: Limpet, tmp_path: Path) -> None:
    with docker_registry(tmp_path / "registry", users={"robot": "pass-word"}) as server:
        name = f"{server.host}/app:1"
        refused = limpet("doctor", "--format=json", "--insecure", f"-d={name}")
        (tmp_path / "config.json").write_text(docker_config(server))
        env = {"DOCKER_CONFIG": str(tmp_path)}
        allowed = limpet("doctor", "--format=json", "--insecure", f"-d={name}", "-v=trace", env=env)
        text = limpet("doctor", "--insecure", f"-d={name}", env=env).stdout
    (no,), (yes,) = (json.loads(each.stdout)["destinations"] for each in (refused, allowed))
    assert (refused.returncode, no["reachable"], no["push"], no["credential"]) == (1, True, False, "")
    assert "401" in no["failure"] and ".docker/config.json" in no["looked_in"]
    assert (allowed.returncode, yes["reachable"], yes["push"], yes["failure"]) == (0, True, True, "")
    assert yes["credential"] == f"password from {tmp_path}/config.json (entry {server.host})"
    said = allowed.stdout + allowed.stderr + text
    auth = json.loads(docker_config(server))["auths"][server.host]["auth"]
    assert "a push is allowed" in text
    assert not any(secret in said for secret in ("pass-word", auth))


def test_what_cannot_be_reached_or_read_is_a_finding(limpet: Limpet, tmp_path: Path) -> None:
    found = limpet("doctor", "--format=json", "-d=127.0.0.1:1/app")
    (destination,) = json.loads(found.stdout)["destinations"]
    assert (found.returncode, destination["reachable"]) == (1, False)
    (tmp_path / "config.json").write_text('{"auths": "pass-word"}')
    found = limpet("doctor", "--format=json", "-d=127.0.0.1:1/app", env={"DOCKER_CONFIG": str(tmp_path)})
    (destination,) = json.loads(found.stdout)["destinations"]
    assert "is not a docker configuration" in destination["failure"]
    assert "pass-word" not in found.stdout + found.stderr


def test_a_destination_that_is_no_name_is_refused(limpet: Limpet) -> None:
    found = limpet("doctor", "-d=r.example/UPPER")
    assert found.returncode == 1 and found.stdout == ""
