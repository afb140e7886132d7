"""The Argo templates, run for real: their steps by a small controller, their containers in podman."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.servers import git_http
from tests.servers.certificates import Authority
from tests.servers.registry import RegistryServer
from tests.task.conftest import docker_config
from tests.task.git_repository import make_repository
from tests.task.test_argo_definitions import TEMPLATES
from tests.task.workflow import Controller

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="pods are made with podman as root"),
]
WITH_RUN = 'ARG REGISTRY\nFROM ${REGISTRY}/busybox\nRUN test -z "$ARGO_NODE_ID" && echo made >/made\n'
WITHOUT_RUN = "ARG REGISTRY\nFROM ${REGISTRY}/busybox\nCOPY Dockerfile /made\n"


@pytest.fixture
def controller(tmp_path: Path, private_registry: RegistryServer, executor: str) -> Controller:
    tmp_path.chmod(0o755)
    secrets = {"limpet-registry": {".dockerconfigjson": docker_config(private_registry)}}
    return Controller(TEMPLATES, tmp_path, executor, secrets=secrets)


def source(directory: Path, dockerfile: str) -> Path:
    made = directory / "source"
    made.mkdir(parents=True)
    made.chmod(0o755)
    (made / "Dockerfile").write_text(dockerfile)
    return made


def given(server: RegistryServer, **more: str) -> dict[str, str]:
    lists = {"build-args": f'["REGISTRY={server.host}"]', "insecure-registries": f'["{server.host}"]'}
    return {**lists, **more}


def inspect(server: RegistryServer, reference: str) -> dict[str, Any]:
    argv = ["skopeo", "inspect", "--raw", "--tls-verify=false", "--creds", f"{server.username}:{server.password}"]
    found: dict[str, Any] = json.loads(
        subprocess.run([*argv, f"docker://{reference}"], capture_output=True, check=True).stdout
    )
    return found


def check(server: RegistryServer, outputs: dict[str, str]) -> None:
    assert outputs["image"] == f"{server.host}/argo:1"
    assert outputs["image-ref"] == outputs["images"] == f"{server.host}/argo@{outputs['digest']}"
    assert inspect(server, outputs["image-ref"]) == inspect(server, outputs["image"])


@pytest.mark.parametrize("cluster", ["Unconfined", "RuntimeDefault"])
@pytest.mark.parametrize("name", ["build", "build-restricted"])
def test_an_artifact_is_built(
    controller: Controller, private_registry: RegistryServer, name: str, cluster: str
) -> None:
    controller.cluster = cluster
    controller.source = source(controller.directory, WITH_RUN if name == "build" else WITHOUT_RUN)
    patch = '{"nodeSelector": {"pool": "builds"}}'
    image = f"{private_registry.host}/argo:1"
    check(
        private_registry,
        controller.run(name, given(private_registry, image=image, tags='["2"]', **{"pod-spec-patch": patch})),
    )
    assert controller.pods == [{"pool": "builds"}]
    done, planned = controller.progress.strip().split("/")
    assert done == planned != "0"
    assert "pass-word" not in controller.log


def test_a_claim_is_built(controller: Controller, private_registry: RegistryServer) -> None:
    claim = controller.directory / "claim"
    source(claim, WITH_RUN + "RUN --mount=type=cache,target=/kept date >>/kept/runs && cp /kept/runs /runs\n")
    controller.claims["shared"] = claim
    arguments = given(private_registry, image=f"{private_registry.host}/argo:1", claim="shared")
    arguments |= {"source-path": "source", "cache-path": "kept"}
    check(private_registry, controller.run("build-from-claim", arguments))
    assert any((claim / "kept").iterdir())


@pytest.mark.skipif(bool(git_http.missing()), reason=git_http.missing())
def test_a_repository_is_built(controller: Controller, private_registry: RegistryServer) -> None:
    """With a user, a password and an authority of one's own."""
    authority = Authority(controller.directory / "authority")
    users = {"robot": "git-secret"}
    with git_http.git_http(controller.directory / "git", tls=authority.server(), users=users) as server:
        make_repository(server.root / "app.git", {"Dockerfile": WITH_RUN})
        controller.secrets["limpet-git"] = {"username": "robot", "password": "git-secret"}
        controller.secrets["our-ca"] = {"ca.pem": authority.certificate.read_text()}
        arguments = given(private_registry, image=f"{private_registry.host}/argo:1", repository=f"{server.url}/app.git")
        arguments["ca-config-map"] = "our-ca"
        check(private_registry, controller.run("build-from-git", arguments))
    assert "git-secret" not in controller.log


def test_a_matrix_becomes_one_index(controller: Controller, private_registry: RegistryServer) -> None:
    controller.source = source(controller.directory, "FROM scratch\nARG TARGETARCH\nCOPY Dockerfile /$TARGETARCH\n")
    repository = f"{private_registry.host}/matrix"
    platforms = ["linux/amd64", "linux/arm64"]
    arguments = {"insecure-registries": f'["{private_registry.host}"]', "platforms": json.dumps(platforms)}
    outputs = controller.run("build-matrix", {**arguments, "repository": repository, "tag": "1.0"})
    assert controller.pods == [{"kubernetes.io/arch": "amd64"}, {"kubernetes.io/arch": "arm64"}, {}]
    assert outputs["image"] == f"{repository}:1.0"
    assert outputs["image-ref"] == f"{repository}@{outputs['digest']}"
    index = inspect(private_registry, outputs["image-ref"])
    assert index == inspect(private_registry, outputs["image"])
    found = {f"{repository}@{each['digest']}": each["platform"]["architecture"] for each in index["manifests"]}
    assert found == dict(zip(json.loads(outputs["images"]), ("amd64", "arm64"), strict=True))
    assert inspect(private_registry, f"{repository}:1.0-linux-arm64")["layers"]
