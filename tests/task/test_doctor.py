"""`limpet doctor` in pods: what it says is true, and the lines that it prints do what it says."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from builder.isolation.survey import ROOT_CAPABILITIES
from tests.task.conftest import ROOT
from tests.task.pods import KINDS, OF_TASK, PodKind

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="pods are made with podman as root"),
]
PAGE = (ROOT / "docs/pods.md").read_text()
COLUMNS = ("namespaces", "in-place", "chroot", "none")


def doctor(kind: PodKind, image: str, work: Path) -> dict[str, Any]:
    done = kind.run(image, ["/limpet/bin/limpet", "doctor", "--format=json", "--work-dir=/work"], {work: "/work"})
    assert done.returncode == 0, done.stderr + done.stdout
    assert list(work.iterdir()) == []
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def row(kind: PodKind) -> list[str]:
    """What docs/pods.md says of a pod, the reasons in the place of their numbers."""
    reasons = dict(re.findall(r"^(\d+)\. `(.*)`$", PAGE, re.M))
    (line,) = re.findall(rf"^\| {re.escape(kind.title)} \| (.*) \|$", PAGE, re.M)
    return [re.sub(r"refused \((\d+)\)", lambda match: reasons[match[1]], cell) for cell in line.split(" | ")]


def cells(report: dict[str, Any]) -> list[str]:
    """The same, as the doctor found it."""
    found = {each["name"]: each for each in report["isolations"]}
    said = [
        "works" if found[name]["works"] else re.split("[;:] (?=the |it )", found[name]["reason"])[0] for name in COLUMNS
    ]
    return [*said, f"`{report['isolation']['taken']}`"]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_the_lines_that_would_allow_more_do(kind: PodKind, executor: str, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    work.chmod(0o777)
    report = doctor(kind, executor, work)
    pod = report["pod"]
    assert pod["uid"] == kind.security.get("runAsUser", 0)
    assert pod["seccomp"] == ("filter" if kind.security["seccompProfile"]["type"] == "RuntimeDefault" else "off")
    assert row(kind) == cells(report)
    for isolation in report["isolations"]:
        of_container = kind.host_users or isolation["name"] != "chroot"  # what the container's YAML can change
        assert bool(isolation["yaml"]) == (not isolation["works"] and of_container), isolation
        if isolation["yaml"]:
            lines = yaml.safe_load(isolation["yaml"])["securityContext"]
            changed = doctor(kind.changed(lines), executor, work)
            works = {each["name"] for each in changed["isolations"] if each["works"]}
            assert isolation["name"] in works, changed["isolations"]


def test_without_a_volume_a_faster_work_directory_is_shown(executor: str) -> None:
    done = KINDS[0].run(executor, ["/limpet/bin/limpet", "doctor", "--format=json"], {})
    report = json.loads(done.stdout)
    assert report["work_directory"]["overlay"] is False
    assert all(each["works"] for each in report["isolations"])
    (volume,) = yaml.safe_load(report["work_directory"]["yaml"])["containers"][0]["volumeMounts"]
    assert volume["mountPath"] == report["work_directory"]["path"] == "/limpet/work"


def test_a_work_directory_that_cannot_be_written_is_a_finding(executor: str) -> None:
    (kind,) = [kind for kind in KINDS if kind.name == "uid 1000"]
    for directory in ("/root/below", "/proc/none"):
        done = kind.run(executor, ["/limpet/bin/limpet", "doctor", "--format=json", f"--work-dir={directory}"], {})
        assert done.returncode == 1, done.stderr
        report = json.loads(done.stdout)
        assert "cannot be written" in report["work_directory"]["failure"] and not report["healthy"]
        assert report["isolation"]["taken"] == "namespaces"


def test_capabilities_are_those_of_the_task() -> None:
    assert list(ROOT_CAPABILITIES) == OF_TASK["capabilities"]["add"]
