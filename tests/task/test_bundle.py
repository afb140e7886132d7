"""Tekton bundles, read back from a real registry by another program."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import yaml

from builder.cli.tekton_bundle import bundle, read_definitions
from builder.errors import UsageError
from tests.servers import registry
from tests.task.conftest import ROOT, docker_config


@pytest.mark.skipif(bool(registry.missing()), reason=registry.missing())
def test_a_bundle_holds_the_catalog(tmp_path: Path) -> None:
    with registry.docker_registry(tmp_path / "registry", users={"robot": "pass-word"}) as server:
        (tmp_path / "config.json").write_text(docker_config(server))
        argv = [sys.executable, "-m", "builder", "catalog", "bundle", f"{server.host}/catalog:0.1", "--insecure"]
        env = {**os.environ, "DOCKER_CONFIG": str(tmp_path)}
        pushed = [subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True) for _ in range(2)]
        assert [done.returncode for done in pushed] == [0, 0], pushed[0].stderr
        assert pushed[0].stdout == pushed[1].stdout
        copied = tmp_path / "copied"
        subprocess.run(
            [
                *("skopeo", "copy", "-q", "--src-tls-verify=false", "--src-creds=robot:pass-word"),
                *(f"docker://{pushed[0].stdout.strip()}", f"dir:{copied}"),
            ],
            check=True,
        )
    manifest = json.loads((copied / "manifest.json").read_text())
    assert manifest["mediaType"] == "application/vnd.docker.distribution.manifest.v2+json"
    found = {}
    for layer in manifest["layers"]:
        with tarfile.open(copied / layer["digest"].partition(":")[2]) as archive:
            (member,) = archive.getmembers()
            file = archive.extractfile(member)
            assert isinstance(file, io.BufferedIOBase)
            value = yaml.safe_load(file.read())
        labels = {key.removeprefix("dev.tekton.image."): text for key, text in layer["annotations"].items()}
        assert labels == {
            "name": value["metadata"]["name"],
            "kind": value["kind"].lower(),
            "apiVersion": value["apiVersion"].partition("/")[2],
        }
        found[labels["kind"], labels["name"]] = value
    assert found == {
        ("task", "limpet"): yaml.safe_load((ROOT / "task/tekton/limpet.yaml").read_text()),
        ("task", "limpet-restricted"): yaml.safe_load((ROOT / "task/tekton/limpet-restricted.yaml").read_text()),
        ("stepaction", "limpet"): yaml.safe_load((ROOT / "task/tekton/stepaction.yaml").read_text()),
    }


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("kind: Pod\napiVersion: v1\nmetadata: {name: a}\n", "Pod a of v1 is none of"),
        ("kind: Task\n", "without apiVersion"),
        ("- a\n", "without apiVersion"),
        ("a: [\n", "while parsing"),
    ],
)
def test_what_is_no_definition_is_refused(tmp_path: Path, text: str, error: str) -> None:
    file = tmp_path / "file.yaml"
    file.write_text(text)
    with pytest.raises(UsageError, match=error):
        read_definitions(file)


def test_a_name_is_there_once() -> None:
    (task,) = read_definitions(ROOT / "task/tekton/limpet.yaml")
    with pytest.raises(UsageError, match="two definitions of Task limpet"):
        bundle([task, task])
