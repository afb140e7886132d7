"""The Task, the StepAction and the restricted Task, run for real: the executor image in containers like pods.

`cluster` is what the kubelet does by default: no seccomp profile, or the container engine's (RuntimeDefault).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from builder.outputs import RESULTS
from tests.servers.registry import RegistryServer
from tests.task.conftest import ROOT, docker_config, shared

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="pods are made with podman as root"),
]
HOME_OF_TASKS = ROOT / "task/tekton"
WITH_RUN = """\
ARG REGISTRY
FROM ${REGISTRY}/busybox AS made
ARG WORDS
RUN mkdir -p /out/dir && echo "$WORDS" >/out/dir/words && ln -s words /out/dir/link && chmod 4755 /out/dir/words
RUN --mount=type=secret,id=token cat /run/secrets/token >/dev/null && test ! -e /tekton/home && test -z "$DOCKER_CONFIG"
FROM ${REGISTRY}/busybox
COPY --from=made /out /out
COPY file /
CMD ["/bin/cat", "/out/dir/words"]
"""
WITHOUT_RUN = """\
ARG REGISTRY
FROM scratch AS made
COPY file /out/dir/words
FROM ${REGISTRY}/busybox
COPY --from=made --chown=1:2 /out /out
ENV A=b
CMD ["/bin/cat", "/out/dir/words"]
"""
WORDS = """B=two words; $(id) `id` "q" --no-push"""
ORDINARY_USER = {
    "runAsUser": 1000,
    "runAsGroup": 1000,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
}


@dataclass
class Outcome:
    """What a TaskRun left."""

    code: int
    log: str
    results: dict[str, str]


@dataclass
class Pod:
    """Runs definitions of task/tekton as the one step of a TaskRun."""

    directory: Path
    registry: RegistryServer
    executor: str
    cluster: str = "Unconfined"
    security: dict[str, Any] | None = None  # instead of the definition's own
    params: dict[str, Any] = field(default_factory=dict)

    def run(self, *documents: dict[str, Any], task: str, credentials: str = "dockerconfig") -> Outcome:
        """Run Task `task` of `documents`. `credentials`: the workspace, or the service account's place in the pod."""
        for document in documents:
            self._adapt(document)
        params = {"IMAGE": f"{self.registry.host}/app:1", "BUILDER_IMAGE": self.executor, **self.params}
        run = {
            "kind": "TaskRun",
            "metadata": {"name": f"limpet-{os.getpid()}"},
            "spec": {
                "taskRef": {"name": task},
                "params": [{"name": name, "value": value} for name, value in params.items()],
                "workspaces": [{"name": "secrets", "secret": {"secretName": "build"}}],
            },
        }
        if credentials == "dockerconfig":
            run["spec"]["workspaces"].append({"name": "dockerconfig", "secret": {"secretName": "registry"}})
        secrets = [
            {
                "kind": "Secret",
                "metadata": {"name": "registry"},
                "stringData": {".dockerconfigjson": docker_config(self.registry)},
            },
            {"kind": "Secret", "metadata": {"name": "build"}, "stringData": {"token": "secret-token"}},
        ]
        file = self.directory / "run.yaml"
        file.write_text(yaml.safe_dump_all([*documents, *secrets, run]))
        work = self.directory / "pod"
        (work / "vol/work").mkdir(parents=True)
        (work / "vol/work").chmod(0o777)  # as an emptyDir is
        if credentials == "service account":
            creds = work / "creds/.docker"
            creds.mkdir(parents=True)
            (creds / "config.json").write_text(docker_config(self.registry))
            (creds / "config.json").chmod(0o600)
            uid = (self.security or {}).get("runAsUser", 0)
            os.chown(creds / "config.json", uid, uid)
        argv = [sys.executable, shared("tools/steprunner.py"), "--work", work, "--bind", f"source={self.source()}"]
        if self.cluster == "RuntimeDefault" or task == "limpet-restricted":  # which asks for the profile itself
            argv += ["--podman-arg=--security-opt", f"--podman-arg=seccomp={shared('tools/pod-seccomp.json')}"]
        done = subprocess.run([*map(str, argv), str(file)], capture_output=True, text=True)
        answer = json.loads(done.stdout[done.stdout.rindex('{\n "results"') :]) if done.returncode == 0 else {}
        return Outcome(done.returncode, done.stdout + done.stderr, answer.get("results", {}))

    def _adapt(self, document: dict[str, Any]) -> None:
        steps = [document["spec"]] if document["kind"] == "StepAction" else document["spec"]["steps"]
        for step in steps:
            if "ref" in step:
                continue
            if self.security is not None:
                step["securityContext"] = dict(self.security)
            if self.cluster == "RuntimeDefault":
                step["securityContext"]["seccompProfile"] = {"type": "RuntimeDefault"}

    def source(self) -> Path:
        """A source tree as git-clone leaves it: another uid's."""
        source = self.directory / "source"
        if not source.exists():
            (source / "app").mkdir(parents=True)
            (source / "app/file").write_text("a file\n")
            (source / "app/Dockerfile").write_text(WITH_RUN)
            (source / "app/Dockerfile.copy").write_text(WITHOUT_RUN)
            for path in (source, *source.rglob("*")):
                os.chown(path, 65532, 65532)
        return source


def definition(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((HOME_OF_TASKS / f"{name}.yaml").read_text())
    return found


@pytest.fixture
def pod(tmp_path: Path, private_registry: RegistryServer, executor: str) -> Pod:
    tmp_path.chmod(0o755)
    server = private_registry
    params = {
        "CONTEXT": "app",
        "DOCKERFILE": "app/Dockerfile",
        "TAGS": ["2", "3"],
        "BUILD_ARGS": [f"REGISTRY={server.host}", f"WORDS={WORDS}"],
        "LABELS": ["a=b c"],
        "ANNOTATIONS": ["org.example.note=n"],
        "INSECURE_REGISTRIES": [server.host],
    }
    return Pod(tmp_path, server, executor, params=params)


def check(pod: Pod, outcome: Outcome, printed: str, *, pushed: bool = True) -> None:
    """The results are right and small, and the image they name is there and runs."""
    assert outcome.code == 0, outcome.log
    host, results = pod.registry.host, outcome.results
    digest = results["IMAGE_DIGEST"]
    assert results["IMAGE_URL"] == f"{host}/app:1"
    assert results["IMAGE_REF"] == results["IMAGES"] == f"{host}/app@{digest}"
    output = json.loads(results["image-ARTIFACT_OUTPUTS"])
    assert output == {"uri": f"{host}/app", "digest": digest, "isBuildArtifact": "true"}
    base = json.loads(results["base-ARTIFACT_INPUTS"])
    assert base["uri"] == f"{host}/busybox" and base["digest"].startswith("sha256:")
    assert set(results) == set(RESULTS)
    assert not any("\n" in text for text in results.values())
    assert len(json.dumps(results)) < 4096
    assert "pass-word" not in outcome.log and "secret-token" not in outcome.log
    if pushed:
        run_image(pod, digest, printed)


def run_image(pod: Pod, digest: str, printed: str) -> None:
    server = pod.registry
    credentials = ["--creds", f"{server.username}:{server.password}", "--tls-verify=false"]
    for tag in ("1", "2", "3"):
        argv = ["skopeo", "inspect", *credentials, "--no-tags", f"docker://{server.host}/app:{tag}"]
        inspected = json.loads(subprocess.run(argv, capture_output=True, check=True).stdout)
        assert inspected["Digest"] == digest
        assert inspected["Labels"]["a"] == "b c"
    name = f"localhost/limpet-app:{os.getpid()}"
    subprocess.run(
        [
            *("skopeo", "copy", "-q", "--src-creds", credentials[1], "--src-tls-verify=false"),
            *(f"docker://{server.host}/app@{digest}", f"containers-storage:{name}"),
        ],
        check=True,
    )
    podman = ["podman", "--runtime", "/usr/sbin/runc", "run", "--rm", "--network", "host"]
    podman += ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000"]
    try:
        assert subprocess.run([*podman, name], capture_output=True, text=True, check=True).stdout == printed
    finally:
        subprocess.run(["podman", "rmi", "-f", name], capture_output=True)


@pytest.mark.parametrize("cluster", ["Unconfined", "RuntimeDefault"])
def test_the_task_builds_as_root(pod: Pod, cluster: str) -> None:
    pod.cluster = cluster
    check(pod, pod.run(definition("limpet"), task="limpet"), WORDS + "\n")


def test_the_task_builds_as_an_ordinary_user(pod: Pod) -> None:
    pod.security = ORDINARY_USER
    outcome = pod.run(definition("limpet"), task="limpet", credentials="service account")
    check(pod, outcome, WORDS + "\n")


@pytest.mark.parametrize("cluster", ["Unconfined", "RuntimeDefault"])
def test_the_restricted_task_builds_what_has_no_run(pod: Pod, cluster: str) -> None:
    pod.cluster = cluster
    pod.params["DOCKERFILE"] = "app/Dockerfile.copy"
    check(pod, pod.run(definition("limpet-restricted"), task="limpet-restricted"), "a file\n")


def test_the_restricted_task_refuses_run(pod: Pod) -> None:
    outcome = pod.run(definition("limpet-restricted"), task="limpet-restricted")
    assert outcome.code != 0
    assert "no isolation works here" in outcome.log and "it needs uid 0, and this is uid 1000" in outcome.log
    assert "Traceback" not in outcome.log


def test_the_step_action_builds_in_a_task_of_ones_own(pod: Pod) -> None:
    params = [*pod.params, "IMAGE", "BUILDER_IMAGE"]
    declared = {param["name"]: param["type"] for param in definition("stepaction")["spec"]["params"]}
    passed = [
        {"name": name, "value": f"$(params.{name}[*])" if declared[name] == "array" else f"$(params.{name})"}
        for name in params
    ]
    paths = {"SOURCE_PATH": "source", "DOCKER_CONFIG_PATH": "dockerconfig", "SECRETS_PATH": "secrets"}
    passed += [{"name": name, "value": f"$(workspaces.{path}.path)"} for name, path in paths.items()]
    task = {
        "kind": "Task",
        "metadata": {"name": "own"},
        "spec": {
            "params": [{"name": name, "type": declared[name]} for name in params],
            "workspaces": [{"name": name} for name in paths.values()],
            "results": [{"name": name, "value": f"$(steps.build.results.{name})"} for name in RESULTS],
            "steps": [{"name": "build", "ref": {"name": "limpet"}, "params": passed}],
        },
    }
    check(pod, pod.run(definition("stepaction"), task, task="own"), WORDS + "\n")


def test_results_are_there_without_a_push(pod: Pod) -> None:
    pod.params |= {"PUSH": "false", "DOCKERFILE": "app/Dockerfile.copy", "IMAGE": f"{pod.registry.host}/app:1"}
    before = pod.registry.requests("PUT")
    check(pod, pod.run(definition("limpet"), task="limpet"), "", pushed=False)
    assert pod.registry.requests("PUT") == before


def test_a_value_that_is_a_flag_is_refused(pod: Pod) -> None:
    pod.params["TAGS"] = ["2", f"--destination={pod.registry.host}/other"]
    outcome = pod.run(definition("limpet"), task="limpet")
    assert outcome.code != 0
    assert "after --only-lists" in outcome.log
