"""Where a build came from: contexts from git and registries, labels, the metadata file."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Limpet
from tests.servers.registry import RegistryServer, docker_registry, missing


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    if missing():
        pytest.skip(missing())
    with docker_registry(tmp_path_factory.mktemp("registry")) as server:
        yield server


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A git repository with one commit, whose Dockerfile starts from scratch."""
    dockerfile = "FROM scratch\nLABEL org.opencontainers.image.source=mine\nCOPY a /\n"
    return make_repository(tmp_path / "repository", dockerfile)


def make_repository(directory: Path, dockerfile: str) -> Path:
    directory.mkdir()
    (directory / "Dockerfile").write_text(dockerfile)
    (directory / "a").write_text("a")
    git(directory, "init", "-q", "-b", "main")
    git(directory, "add", ".")
    git(directory, "-c", "user.name=x", "-c", "user.email=x@example.com", "commit", "-q", "-m", "one")
    return directory


def git(directory: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=directory, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def build(limpet: Limpet, context: str | Path, *arguments: str) -> None:
    result = limpet(f"--context={context}", *arguments)
    assert result.returncode == 0, result.stderr


def labels(layout: Path) -> dict[str, str]:
    config = blob(layout, blob(layout, json.loads((layout / "index.json").read_text())["manifests"][0])["config"])
    found: dict[str, str] = config["config"].get("Labels") or {}
    return found


def blob(layout: Path, descriptor: dict[str, Any]) -> Any:
    return json.loads((layout / "blobs" / descriptor["digest"].replace(":", "/")).read_text())


def test_the_revision_of_a_git_context(limpet: Limpet, repository: Path, tmp_path: Path) -> None:
    commit = git(repository, "rev-parse", "HEAD")
    metadata, layout = tmp_path / "metadata.json", tmp_path / "layout"
    outputs = ("--no-push", f"--metadata-file={metadata}", f"--oci-layout-path={layout}")
    build(limpet, f"git+file://{repository}", "--auto-labels", *outputs)
    context = json.loads(metadata.read_text())["context"]
    assert (context["revision"], context["revision_kind"]) == (commit, "commit")
    assert context["source"].endswith(str(repository))
    found = labels(layout)
    assert found["org.opencontainers.image.revision"] == commit
    assert found["org.opencontainers.image.source"] == context["source"]


def test_labels_of_the_context_only_when_asked_and_behind_label(
    limpet: Limpet, repository: Path, tmp_path: Path
) -> None:
    context = f"git+file://{repository}"
    build(limpet, context, "--no-push", f"--oci-layout-path={tmp_path / '1'}")
    assert labels(tmp_path / "1") == {"org.opencontainers.image.source": "mine"}
    label = "--label=org.opencontainers.image.revision=7"
    build(limpet, context, "--auto-labels", label, "--no-push", f"--oci-layout-path={tmp_path / '2'}")
    assert labels(tmp_path / "2")["org.opencontainers.image.revision"] == "7"
    build(limpet, repository, "--auto-labels", "--no-push", f"--oci-layout-path={tmp_path / '3'}")
    assert labels(tmp_path / "3") == {"org.opencontainers.image.source": "mine"}


def test_base_images_in_the_metadata(
    limpet: Limpet, repository: Path, registry: RegistryServer, tmp_path: Path
) -> None:
    digests = {}
    for name in ("tools", "runtime"):
        (repository / "a").write_text(name)
        build(limpet, repository, f"-d={registry.host}/{name}:1", f"--digest-file={tmp_path / name}")
        digests[name] = (tmp_path / name).read_text()
    pinned = f"{registry.host}/runtime@{digests['runtime']}"
    (repository / "Dockerfile").write_text(
        f"FROM {registry.host}/tools:1 AS t\nFROM {pinned} AS r\nCOPY --from=t /a /b\nFROM r\nCOPY a /c\n"
    )
    metadata, results = tmp_path / "metadata.json", tmp_path / "results"
    build(limpet, repository, "--no-push", f"--metadata-file={metadata}", f"--results-dir={results}")
    found = {base["reference"]: base for base in json.loads(metadata.read_text())["bases"]}
    assert {name: base["digest"] for name, base in found.items()} == {
        f"{registry.host}/tools:1": digests["tools"],
        pinned: digests["runtime"],
    }
    assert [name for name, base in found.items() if base["base_of_image"]] == [pinned]
    chains = json.loads((results / "base-ARTIFACT_INPUTS").read_text())
    assert chains == {"uri": f"{registry.host}/runtime", "digest": digests["runtime"]}


def test_a_context_in_a_registry(limpet: Limpet, repository: Path, registry: RegistryServer, tmp_path: Path) -> None:
    (repository / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    build(limpet, repository, f"-d={registry.host}/context:1", f"--digest-file={tmp_path / 'digest'}")
    digest = (tmp_path / "digest").read_text()
    metadata = tmp_path / "metadata.json"
    for name in (f"{registry.host}/context:1", f"{registry.host}/context@{digest}"):
        build(limpet, f"oci://{name}", "--no-push", f"--metadata-file={metadata}")
        context = json.loads(metadata.read_text())["context"]
        assert context == {"source": f"oci://{name}", "revision": digest, "revision_kind": "digest"}
    result = limpet(f"--context=oci://{registry.host}/context:2", "--no-push")
    assert result.returncode != 0
    assert f"{registry.host}/context" in result.stderr
    assert "internal" not in result.stderr


def test_an_artifact_of_another_kind_as_context(
    limpet: Limpet, registry: RegistryServer, tmp_path: Path, repository: Path
) -> None:
    """Its config is no image's, and its layers are files that are called what their titles say."""
    from builder.oci import media_types
    from builder.oci.blobs import MemoryBlob
    from builder.oci.descriptor import Descriptor
    from builder.oci.layout import write_blob

    layout = tmp_path / "artifact"
    config, file = b"{}", b"FROM scratch\nLABEL from=artifact\n"
    layer = Descriptor.of("application/octet-stream", file).to_json()
    layer["annotations"] = {"org.opencontainers.image.title": "Dockerfile"}
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": media_types.OCI_MANIFEST,
            "config": Descriptor.of("application/vnd.oci.empty.v1+json", config).to_json(),
            "layers": [layer],
        }
    ).encode()
    top = Descriptor.of(media_types.OCI_MANIFEST, manifest)
    for data in (config, file, manifest):
        write_blob(layout, Descriptor.of("", data), MemoryBlob(data))
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [top.to_json()]}))
    target = f"docker://{registry.host}/artifact:1"
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    copy = ["skopeo", "copy", "-q", "--insecure-policy", "--dest-tls-verify=false", f"oci:{layout}", target]
    subprocess.run(copy, check=True, env=environment)
    build(limpet, f"oci://{registry.host}/artifact:1", "--no-push", f"--oci-layout-path={tmp_path / 'out'}")
    assert labels(tmp_path / "out") == {"from": "artifact"}
