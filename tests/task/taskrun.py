"""TaskRuns of the project's definitions: the executor image in containers that have a Tekton pod's layout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from builder.outputs import RESULTS
from tests.servers.registry import RegistryServer
from tests.task.conftest import docker_config, shared
from tests.task.definitions import tekton

ORDINARY_USER = {
    "runAsUser": 1000,
    "runAsGroup": 1000,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
}
# Workspaces of the Task, and the parameters of the StepAction that take their paths.
PATHS = {
    "source": "SOURCE_PATH",
    "dockerconfig": "DOCKER_CONFIG_PATH",
    "ca": "CA_PATH",
    "secrets": "SECRETS_PATH",
    "ssh": "SSH_PATH",
    "cache": "CACHE_PATH",
    "reports": "REPORTS_PATH",
}


@dataclass
class Outcome:
    """What a TaskRun left."""

    code: int
    log: str
    results: dict[str, str]


@dataclass
class Pod:
    """Runs a definition of task/tekton as the one step of a TaskRun.

    `cluster` is what the kubelet does by default: no seccomp profile, or the container engine's (RuntimeDefault).
    `security` is used instead of the definition's own. `secrets` has the files of workspaces that are Secrets,
    `volumes` the directories of those that are volumes. With `service_account` registry credentials are where Tekton
    puts those of the service account, else they are the workspace dockerconfig.
    """

    directory: Path
    registry: RegistryServer
    executor: str
    source: Path
    cluster: str = "Unconfined"
    security: Mapping[str, Any] | None = None
    params: dict[str, Any] = field(default_factory=dict)
    secrets: dict[str, dict[str, str]] = field(default_factory=dict)
    volumes: dict[str, Path] = field(default_factory=dict)
    service_account: bool = False
    runs: int = 0

    def run(self, name: str) -> Outcome:
        """Run the Task called `name`, or a Task around the StepAction for "stepaction"."""
        self.runs += 1
        definition = tekton(name)
        documents = [definition] if name != "stepaction" else [definition, self._task_around(definition)]
        self._adapt(definition)
        secrets = dict(self.secrets)
        if not self.service_account:
            secrets["dockerconfig"] = {".dockerconfigjson": docker_config(self.registry)}
        for workspace, files in secrets.items():
            documents.append({"kind": "Secret", "metadata": {"name": workspace}, "stringData": files})
        params = {"IMAGE": f"{self.registry.host}/app:1", "BUILDER_IMAGE": self.executor, **self.params}
        run = {
            "kind": "TaskRun",
            "metadata": {"name": f"limpet-{os.getpid()}-{self.runs}"},
            "spec": {
                "taskRef": {"name": documents[1 if name == "stepaction" else 0]["metadata"]["name"]},
                "params": [{"name": param, "value": value} for param, value in params.items()],
                "workspaces": [{"name": each, "secret": {"secretName": each}} for each in secrets],
            },
        }
        return self._run([*documents, run], name)

    def _run(self, documents: list[dict[str, Any]], name: str) -> Outcome:
        work = self.directory / f"pod-{self.runs}"
        (work / "vol/work").mkdir(parents=True)
        (work / "vol/work").chmod(0o777)  # as an emptyDir is
        if self.service_account:
            self._put_credentials(work / "creds/.docker")
        file = work / "run.yaml"
        file.write_text(yaml.safe_dump_all(documents))
        argv = [sys.executable, shared("tools/steprunner.py"), "--work", work, "--bind", f"source={self.source}"]
        for workspace, directory in self.volumes.items():
            argv += ["--bind", f"{workspace}={directory}"]
        if self.cluster == "RuntimeDefault" or name == "limpet-restricted":  # which asks for the profile itself
            argv += ["--podman-arg=--security-opt", f"--podman-arg=seccomp={shared('tools/pod-seccomp.json')}"]
        done = subprocess.run([*map(str, argv), str(file)], capture_output=True, text=True)
        answer = json.loads(done.stdout[done.stdout.rindex('{\n "results"') :]) if done.returncode == 0 else {}
        return Outcome(done.returncode, done.stdout + done.stderr, answer.get("results", {}))

    def _put_credentials(self, directory: Path) -> None:
        directory.mkdir(parents=True)
        file = directory / "config.json"
        file.write_text(docker_config(self.registry))
        file.chmod(0o600)
        uid = (self.security or {}).get("runAsUser", 0)
        os.chown(file, uid, uid)

    def _adapt(self, definition: dict[str, Any]) -> None:
        spec = definition["spec"]
        step = spec if definition["kind"] == "StepAction" else spec["steps"][0]
        if self.security is not None:
            step["securityContext"] = dict(self.security)
        if self.cluster == "RuntimeDefault":
            step["securityContext"]["seccompProfile"] = {"type": "RuntimeDefault"}

    def _task_around(self, action: dict[str, Any]) -> dict[str, Any]:
        """A Task that hands its parameters and workspaces to the StepAction."""
        declared = {param["name"]: param["type"] for param in action["spec"]["params"]}
        params = [*self.params, "IMAGE", "BUILDER_IMAGE"]
        passed = [
            {"name": name, "value": f"$(params.{name}[*])" if declared[name] == "array" else f"$(params.{name})"}
            for name in params
        ]
        passed += [{"name": name, "value": f"$(workspaces.{path}.path)"} for path, name in PATHS.items()]
        return {
            "kind": "Task",
            "metadata": {"name": "own"},
            "spec": {
                "params": [{"name": name, "type": declared[name]} for name in params],
                "workspaces": [{"name": name, "optional": True} for name in PATHS],
                "results": [{"name": name, "value": f"$(steps.build.results.{name})"} for name in RESULTS],
                "steps": [{"name": "build", "ref": {"name": "limpet"}, "params": passed}],
            },
        }
