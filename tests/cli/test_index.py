"""`limpet index create` in a registry."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import Limpet
from tests.servers.registry import docker_registry, missing


@pytest.mark.skipif(bool(missing()), reason="docker-registry is not installed")
def test_an_index_of_two_platforms(limpet: Limpet, tmp_path: Path) -> None:
    context = tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
    with docker_registry(tmp_path / "registry") as registry:
        members, digests = [], []
        for arch in ("amd64", "arm64"):
            members.append(f"{registry.host}/{arch}:1")
            file = tmp_path / arch
            platform = f"--custom-platform=linux/{arch}"
            built = limpet(f"--context={context}", f"-d={members[-1]}", platform, f"--digest-file={file}")
            assert built.returncode == 0, built.stderr
            digests.append(file.read_text())
        results = tmp_path / "results"
        url = tmp_path / "url"
        files = [f"--results-dir={results}", f"--result=IMAGE_URL={url}"]
        made = limpet("index", "create", *files, f"{registry.host}/app:1", *members)
        assert made.returncode == 0, made.stderr
        assert url.read_text() == (results / "IMAGE_URL").read_text() == f"{registry.host}/app:1"
        digest = (results / "IMAGE_DIGEST").read_text()
        assert (results / "IMAGE_REF").read_text() == f"{registry.host}/app@{digest}"
        command = ["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{registry.host}/app@{digest}"]
        index = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        assert [entry["digest"] for entry in index["manifests"]] == digests
        assert [entry["platform"]["architecture"] for entry in index["manifests"]] == ["amd64", "arm64"]
        twice = limpet("index", "create", f"{registry.host}/app:2", members[0], members[0])
        assert twice.returncode != 0
        assert "linux/amd64" in twice.stderr
