"""examples/kaniko: pipelines as kaniko's users have them, against schemas, and run with the executor image."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from builder.cli.arguments import parse
from builder.cli.settings import settings_of
from tests.servers.registry import RegistryServer
from tests.task.conftest import ROOT, docker_config, shared
from tests.task.test_argo_definitions import closed
from tests.task.test_tekton_definitions import closed as closed_crd

EXAMPLES = ROOT / "examples/kaniko"
VARIABLES = {
    "$(params.EXTRA_ARGS[*])": "--reproducible",
    "$(params.DOCKERFILE)": "./Dockerfile",
    "$(workspaces.source.path)": "/workspace",
    "$(params.CONTEXT)": "./",
    "$(params.IMAGE)": "registry.example.com/team/app:1.0",
    "$(results.IMAGE_DIGEST.path)": "/tekton/results/IMAGE_DIGEST",
    "$(results.IMAGE_URL.path)": "/tekton/results/IMAGE_URL",
    "$PROJECT_ID": "project",
    "$COMMIT_SHA": "0123456",
}
root = pytest.mark.root
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="pods are made with podman as root")


def example(name: str) -> Any:
    return yaml.safe_load((EXAMPLES / name).read_text())


def jenkins_pod() -> Any:
    """The pod inside the Jenkinsfile, and the command that runs in it."""
    text = (EXAMPLES / "Jenkinsfile").read_text()
    pod = yaml.safe_load(text.split("'''")[1])
    command = re.search(r"^ *sh '(.*)'$", text, re.M)
    assert command
    return pod, command[1]


def test_kubernetes_accepts_the_pods() -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    pod, _ = jenkins_pod()
    for each in (example("pod.yaml"), {**pod, "metadata": {"name": "jenkins"}}):
        kubernetes_validate.validate(each, "1.31", strict=True)


def test_tekton_accepts_the_task() -> None:
    schemas = json.loads(shared("schemas/tekton-crds.json").read_text())
    task = example("tekton-task.yaml")
    jsonschema.validate(task, closed_crd(schemas["Task/v1"]))


def test_argo_accepts_the_workflow() -> None:
    schema = closed(json.loads(shared("schemas/argo-workflows.json").read_text()))
    name = next(each for each in schema["definitions"] if each.endswith("v1alpha1.Workflow"))
    value = {"$ref": f"#/definitions/{name}", "definitions": schema["definitions"]}
    jsonschema.validate(example("argo-workflow.yaml"), value)


def command_lines() -> dict[str, list[str]]:
    """The executor's arguments in every example, variables filled in."""
    gitlab = example("gitlab-ci.yml")
    found = {
        "pod": example("pod.yaml")["spec"]["containers"][0]["args"],
        "tekton": example("tekton-task.yaml")["spec"]["steps"][0]["args"],
        "argo": example("argo-workflow.yaml")["spec"]["templates"][0]["container"]["args"],
        "cloudbuild": example("cloudbuild.yaml")["steps"][0]["args"],
        "jenkins": shlex.split(jenkins_pod()[1])[1:],
    }
    for name, job in gitlab.items():
        found[f"gitlab-{name}"] = shlex.split(job["script"][-1])[1:]
    return {name: [_filled(argument) for argument in arguments] for name, arguments in found.items()}


def _filled(argument: str) -> str:
    for variable, value in VARIABLES.items():
        argument = argument.replace(variable, value)
    return argument


@pytest.mark.parametrize("name", sorted(command_lines()))
def test_the_executor_takes_every_command_line(name: str) -> None:
    arguments = parse("build", command_lines()[name], {})
    assert arguments.positionals == ()
    assert settings_of(arguments, {}).output.destinations


@pytest.fixture(scope="module")
def debug(executor_layout: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The executor image with a shell for people, as the debug variant has it, in podman's store."""
    work = tmp_path_factory.mktemp("debug")
    (work / "busybox").mkdir()
    shutil.copy("/bin/busybox", work / "busybox/busybox")
    for name in subprocess.check_output(["/bin/busybox", "--list"], text=True).split():
        if name != "busybox":
            (work / "busybox" / name).symlink_to("busybox")
    (work / "Dockerfile").write_text("FROM executor\nCOPY busybox /busybox\n")
    flags = [f"--context={work}", f"--build-context=executor=oci-layout://{executor_layout}", "--no-push"]
    command = [sys.executable, "-m", "builder", *flags, f"--oci-layout-path={work / 'out'}"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    name = f"localhost/limpet-test-debug:{executor_layout.name}-{os.getpid()}"
    copy = ["skopeo", "copy", "-q", f"oci:{work / 'out'}", f"containers-storage:{name}"]
    subprocess.run(copy, check=True, capture_output=True)
    yield name
    subprocess.run(["podman", "rmi", "-f", name], capture_output=True)


class Container:
    """A container like a pod's, with the context at /workspace and credentials where kaniko's pipelines have them."""

    def __init__(self, directory: Path, registry: RegistryServer) -> None:
        self.registry = registry
        self.context = directory / "context"
        self.context.mkdir()
        base = f"{registry.host}/busybox"
        (self.context / "Dockerfile").write_text(f"FROM {base}\nCOPY file /file\nRUN echo ran > /ran\n")
        (self.context / "file").write_text("a file\n")
        self.credentials = directory / "credentials"
        self.credentials.mkdir()
        (self.credentials / "config.json").write_text(docker_config(registry))
        self.termination = directory / "termination"
        self.termination.write_text("")

    def run(
        self,
        image: str,
        *argv: str,
        entrypoint: str = "",
        env: dict[str, str] | None = None,
        secret: bool = True,
        stdin: bytes = b"",
    ) -> str:
        """The log of a container that succeeds."""
        podman = ["podman", "--runtime", "/usr/sbin/runc", "run", "--rm", "--interactive", "--network", "host"]
        podman += ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000"]
        podman += [f"--volume={self.context}:/workspace", f"--volume={self.termination}:/dev/termination-log"]
        podman += [f"--volume={self.credentials}:/kaniko/.docker:ro"] if secret else []
        podman += [f"--env={name}={value}" for name, value in (env or {}).items()]
        podman += [f"--entrypoint={entrypoint}"] if entrypoint else []
        done = subprocess.run(
            [*podman, image, *argv], input=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
        )
        log = done.stdout.decode(errors="replace")
        assert done.returncode == 0, log
        return log

    def digest(self, name: str) -> str:
        """The digest of the image called `name`, by skopeo."""
        login = f"{self.registry.username}:{self.registry.password}"
        command = ["skopeo", "inspect", "--tls-verify=false", "--creds", login, f"docker://{self.registry.host}/{name}"]
        return str(json.loads(subprocess.run(command, capture_output=True, check=True).stdout)["Digest"])


@pytest.fixture
def container(tmp_path: Path, private_registry: RegistryServer) -> Container:
    return Container(tmp_path, private_registry)


@root
@needs_root
def test_the_pod_runs(container: Container, executor: str) -> None:
    argv = [
        argument.replace("registry.example.com/team/app:1.0", f"{container.registry.host}/kaniko/pod:1")
        for argument in command_lines()["pod"]
    ]
    log = container.run(executor, *argv, env={})
    assert "--use-new-run has no effect" in log
    assert container.termination.read_text() == container.digest("kaniko/pod:1")


@root
@needs_root
def test_the_cloud_build_step_runs(container: Container, executor: str) -> None:
    """Its context is /workspace, which no flag names."""
    argv = [
        re.sub(r"=europe-docker.*", f"={container.registry.host}/kaniko/cloudbuild:1", argument)
        for argument in command_lines()["cloudbuild"]
    ]
    container.run(executor, *argv, env={"BUILDER_OUTPUT": "/workspace"})
    written = json.loads((container.context / "images").read_text())
    assert written["digest"] == container.digest("kaniko/cloudbuild:1")


@root
@needs_root
@pytest.mark.parametrize("job", ["build", "build-without-file"])
def test_the_gitlab_job_runs(container: Container, debug: str, job: str) -> None:
    script = "set -e\n" + "\n".join(example("gitlab-ci.yml")[job]["script"])
    env = {
        "CI_REGISTRY": container.registry.host,
        "CI_REGISTRY_USER": container.registry.username,
        "CI_REGISTRY_PASSWORD": container.registry.password,
        "CI_REGISTRY_IMAGE": f"{container.registry.host}/kaniko/gitlab",
        "CI_COMMIT_TAG": job,
        "CI_PROJECT_DIR": "/workspace",
    }
    container.run(debug, "-c", script, entrypoint="/busybox/sh", env=env, secret=False)
    assert container.digest(f"kaniko/gitlab:{job}").startswith("sha256:")


@root
@needs_root
def test_the_jenkins_step_runs(container: Container, debug: str) -> None:
    pod, command = jenkins_pod()
    assert pod["spec"]["containers"][0]["command"] == ["/busybox/sleep"]
    script = command.replace("registry.example.com/team/app", f"{container.registry.host}/kaniko/jenkins")
    container.run(debug, "-c", f"cd /workspace && {script}", entrypoint="/busybox/sh", env={"BUILD_NUMBER": "7"})
    assert container.digest("kaniko/jenkins:7").startswith("sha256:")


@root
@needs_root
@pytest.mark.parametrize("pipeline", ["argo", "tekton"])
def test_the_step_runs(container: Container, executor: str, pipeline: str) -> None:
    name = f"{container.registry.host}/kaniko/{pipeline}:1"
    places = {
        "registry.example.com/team/app:1.0": name,
        "/tekton/results": "/workspace/results",
        "=/tmp/digest": "=/workspace/results/IMAGE_DIGEST",
    }
    argv = command_lines()[pipeline]
    for there, here in places.items():
        argv = [argument.replace(there, here) for argument in argv]
    container.run(executor, *argv)
    results = {path.name: path.read_text() for path in (container.context / "results").iterdir()}
    assert results.pop("IMAGE_DIGEST") == container.digest(f"kaniko/{pipeline}:1")
    assert results == ({"IMAGE_URL": name} if pipeline == "tekton" else {})


@root
@needs_root
def test_the_context_comes_by_standard_input(container: Container, executor: str) -> None:
    """`tar -cf - . | gzip -9 | docker run --interactive ... --context tar://stdin`."""
    packed = subprocess.run(["tar", "-C", str(container.context), "-czf", "-", "."], capture_output=True, check=True)
    flags = ["--context", "tar://stdin", "--destination", f"{container.registry.host}/kaniko/stdin:1"]
    container.run(executor, *flags, stdin=packed.stdout)
    assert container.digest("kaniko/stdin:1").startswith("sha256:")


@root
@needs_root
def test_the_line_of_many_jenkinsfiles_runs(container: Container, debug: str) -> None:
    name = f"{container.registry.host}/kaniko/many:1"
    script = f"/kaniko/executor -f `pwd`/Dockerfile -c `pwd` --insecure --skip-tls-verify --cache=true -d {name}"
    first = container.run(debug, "-c", f"cd /workspace && {script}", entrypoint="/busybox/sh")
    assert "No cached layer found for cmd RUN" in first
    again = container.run(debug, "-c", f"cd /workspace && {script}", entrypoint="/busybox/sh")
    assert "Using caching version of cmd: RUN" in again
    assert f"Checking for cached layer {container.registry.host}/kaniko/many/cache:" in again
