"""The Argo template's container, run for real with its own arguments, environment and mounts."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.servers.registry import RegistryServer
from tests.task.conftest import docker_config, shared
from tests.task.test_argo_definitions import ARGO_VARIABLE, TEMPLATES, argv

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="pods are made with podman as root"),
]
DOCKERFILE = {
    "build": 'ARG REGISTRY\nFROM ${REGISTRY}/busybox\nRUN test -z "$ARGO_NODE_ID" && echo made >/made\n',
    "build-restricted": "ARG REGISTRY\nFROM ${REGISTRY}/busybox\nCOPY Dockerfile /made\n",
}


@pytest.mark.parametrize("cluster", ["Unconfined", "RuntimeDefault"])
@pytest.mark.parametrize("name", ["build", "build-restricted"])
def test_the_container_builds(
    tmp_path: Path, private_registry: RegistryServer, executor: str, name: str, cluster: str
) -> None:
    server, template = private_registry, TEMPLATES[name]
    mounts = {"work": 0o777, "results": 0o777, "registry-secret": 0o755, "build-secret": 0o755}
    for directory, mode in {**mounts, "source": 0o755}.items():
        (tmp_path / directory).mkdir()
        (tmp_path / directory).chmod(mode)
    tmp_path.chmod(0o755)
    (tmp_path / "source/Dockerfile").write_text(DOCKERFILE[name])
    (tmp_path / "registry-secret/.dockerconfigjson").write_text(docker_config(server))
    given = {
        "image": f"{server.host}/argo:1",
        "build_args": f'["REGISTRY={server.host}"]',
        "insecure_registries": f'["{server.host}"]',
    }
    progress = tmp_path / "results/progress"
    podman = [shutil.which("podman"), "--runtime", "/usr/sbin/runc", "run", "--rm", "--network", "host"]
    podman += ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000", "-w", template["container"]["workingDir"]]
    podman += ["-v", f"{tmp_path}/source:/workspace/source:ro"]
    for mount in template["container"]["volumeMounts"]:
        read_only = ":ro" if mount.get("readOnly") else ""
        podman += ["-v", f"{tmp_path}/{mount['name']}:{mount['mountPath']}{read_only}"]
    for variable in template["container"]["env"]:
        if "value" in variable:
            podman += ["-e", f"{variable['name']}={ARGO_VARIABLE.sub('', variable['value'])}"]
    podman += ["-e", "ARGO_NODE_ID=node", "-e", "ARGO_PROGRESS_FILE=/limpet/results/progress"]
    security, inner = template["securityContext"], template["container"]["securityContext"]
    podman += ["--user", f"{security['runAsUser']}:{security['runAsGroup']}", "--security-opt", "no-new-privileges"]
    podman += ["--cap-drop", "all", *(f"--cap-add={each}" for each in inner["capabilities"].get("add", []))]
    confined = cluster == "RuntimeDefault" or "seccompProfile" in security
    podman += ["--security-opt", f"seccomp={shared('tools/pod-seccomp.json') if confined else 'unconfined'}"]
    podman += ["--entrypoint", template["container"]["command"][0], executor]
    done = subprocess.run([*podman, *argv(name, **given)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    made = {each["name"]: Path(each["valueFrom"]["path"]).name for each in template["outputs"]["parameters"]}
    outputs = {key: (tmp_path / "results" / file).read_text() for key, file in made.items()}
    assert outputs["image"] == f"{server.host}/argo:1"
    assert outputs["image-ref"] == outputs["images"] == f"{server.host}/argo@{outputs['digest']}"
    done_steps, all_steps = progress.read_text().strip().split("/")
    assert done_steps == all_steps != "0"
    inspected = subprocess.run(
        [
            *("skopeo", "inspect", "--raw", "--tls-verify=false", "--creds", f"{server.username}:{server.password}"),
            f"docker://{server.host}/argo@{outputs['digest']}",
        ],
        capture_output=True,
    )
    assert inspected.returncode == 0
