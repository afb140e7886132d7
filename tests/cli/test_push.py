"""`limpet push` to a registry."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import Limpet
from tests.servers.registry import docker_registry, missing


@pytest.mark.skipif(bool(missing()), reason="docker-registry is not installed")
def test_push_of_a_layout_and_of_an_archive(limpet: Limpet, tmp_path: Path) -> None:
    context = tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text("FROM scratch\nCOPY a /\n")
    (context / "a").write_text("a")
    layout, archive, digest = tmp_path / "layout", tmp_path / "image.tar", tmp_path / "digest"
    built = limpet(f"--context={context}", "--no-push", f"--oci-layout-path={layout}", f"--digest-file={digest}")
    assert built.returncode == 0, built.stderr
    assert limpet(f"--context={context}", "--no-push", f"--tar-path={archive}", "-d=x/y:1").returncode == 0
    with docker_registry(tmp_path / "registry") as registry:
        pushed = limpet("push", str(layout), f"-d={registry.host}/app:1", "--tags=2")
        assert pushed.returncode == 0, pushed.stderr
        for tag in "12":
            assert inspect(f"{registry.host}/app:{tag}")["Digest"] == digest.read_text()
        pushed = limpet("push", f"-d={registry.host}/tar:1", f"--digest-file={digest}", str(archive))
        assert pushed.returncode == 0, pushed.stderr
        assert inspect(f"{registry.host}/tar:1")["Digest"] == digest.read_text()
        assert limpet("push", str(tmp_path / "none"), f"-d={registry.host}/app:1").returncode != 0


def inspect(name: str) -> dict[str, str]:
    command = ["skopeo", "inspect", "--tls-verify=false", f"docker://{name}"]
    found: dict[str, str] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return found
