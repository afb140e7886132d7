"""`limpet push` to a registry."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from builder.oci import layout, media_types
from builder.oci.blobs import MemoryBlob
from builder.oci.descriptor import Descriptor, sha256
from builder.oci.platform import Platform
from tests.cli.conftest import Limpet
from tests.images import AMD64, image
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


@pytest.mark.skipif(bool(missing()), reason="docker-registry is not installed")
def test_an_index_goes_with_its_attestations(limpet: Limpet, tmp_path: Path) -> None:
    layout.write(tmp_path / "layout", *(image(platform=platform) for platform in (AMD64, Platform("linux", "arm64"))))
    index = attested(tmp_path / "layout")
    with docker_registry(tmp_path / "registry") as registry:
        pushed = limpet("push", str(tmp_path / "layout"), f"-d={registry.host}/app:1", f"-d={registry.host}/other:2")
        assert pushed.returncode == 0, pushed.stderr
        copied = tmp_path / "copied"
        command = ["skopeo", "copy", "--all", "--src-tls-verify=false", f"docker://{registry.host}/app:1"]
        subprocess.run([*command, f"oci:{copied}:1"], check=True, capture_output=True)  # digests are checked
        assert json.loads((copied / "index.json").read_bytes())["manifests"][0]["digest"] == index
        blobs = [{path.name for path in (top / "blobs/sha256").iterdir()} for top in (copied, tmp_path / "layout")]
        assert blobs[0] <= blobs[1]
        assert sha256(STATEMENT).partition(":")[2] in blobs[0]
        layout.blob_path(tmp_path / "layout", sha256(STATEMENT)).unlink()
        failed = limpet("push", str(tmp_path / "layout"), f"-d={registry.host}/broken:1")
        assert failed.returncode == 1
        assert f"{sha256(STATEMENT)} is missing" in failed.stderr


STATEMENT = b'{"_type": "https://in-toto.io/Statement/v0.1"}'


def attested(directory: Path) -> str:
    """Put an attestation into the index of a layout, as BuildKit does; the new index's digest."""

    def put(media_type: str, data: bytes) -> dict[str, Any]:
        descriptor = Descriptor.of(media_type, data)
        layout.write_blob(directory, descriptor, MemoryBlob(data))
        return descriptor.to_json()

    top = json.loads((directory / "index.json").read_bytes())
    index = json.loads(layout.blob_path(directory, top["manifests"][0]["digest"]).read_bytes())
    config = {"architecture": "unknown", "os": "unknown", "rootfs": {"type": "layers", "diff_ids": [sha256(STATEMENT)]}}
    manifest = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_MANIFEST,
        "config": put(media_types.OCI_CONFIG, json.dumps(config).encode()),
        "layers": [put("application/vnd.in-toto+json", STATEMENT)],
    }
    member = put(media_types.OCI_MANIFEST, json.dumps(manifest).encode())
    member["platform"] = {"architecture": "unknown", "os": "unknown"}
    member["annotations"] = {"vnd.docker.reference.type": "attestation-manifest"}
    index["manifests"].append(member)
    top["manifests"] = [put(media_types.OCI_INDEX, json.dumps(index).encode())]
    (directory / "index.json").write_text(json.dumps(top))
    return str(top["manifests"][0]["digest"])


def inspect(name: str) -> dict[str, str]:
    command = ["skopeo", "inspect", "--tls-verify=false", f"docker://{name}"]
    found: dict[str, str] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return found
