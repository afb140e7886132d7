"""Carries out templates of the Argo definitions: steps here, containers in podman as Argo's pods have them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.task.conftest import shared
from tests.task.definitions import ARGO_VARIABLE

# Expressions in the definitions, and what they are for an item.
EXPRESSIONS: dict[str, Callable[[str], str]] = {
    "=sprig.replace('/', '-', item)": lambda item: item.replace("/", "-"),
    "=sprig.splitList('/', item)[1]": lambda item: item.split("/")[1],
}
Scope = Mapping[str, str]


def substitute(text: str, scope: Scope) -> str:
    """`text` with the `{{...}}` that `scope` knows."""

    def value(name: str) -> str:
        return EXPRESSIONS[name](scope["item"]) if name in EXPRESSIONS else scope[name]

    return ARGO_VARIABLE.sub(lambda match: value(match[1]), text)


@dataclass
class Controller:
    """Runs templates. `source` is the artifact of that name, `secrets` and `claims` are volumes by their names.

    `pods` gets the node selector of every container that ran.
    """

    templates: Mapping[str, dict[str, Any]]
    directory: Path
    executor: str
    cluster: str = "Unconfined"
    source: Path | None = None
    secrets: dict[str, dict[str, str]] = field(default_factory=dict)
    claims: dict[str, Path] = field(default_factory=dict)
    pods: list[dict[str, str]] = field(default_factory=list)
    log: str = ""
    progress: str = ""

    def run(self, name: str, arguments: Mapping[str, str]) -> dict[str, str]:
        """The output parameters of a template."""
        template = self.templates[name]
        declared = {each["name"]: each["value"] for each in template["inputs"]["parameters"]}
        assert arguments.keys() <= declared.keys()
        scope = {f"inputs.parameters.{key}": value for key, value in {**declared, **arguments}.items()}
        return self._steps(template, scope) if "steps" in template else self._container(template, scope)

    def _steps(self, template: dict[str, Any], scope: dict[str, str]) -> dict[str, str]:
        for group in template["steps"]:
            for step in group:
                prefix = f"steps.{step['name']}.outputs.parameters."
                if "withParam" in step:
                    items = json.loads(substitute(step["withParam"], scope))
                    every = [self._step(step, {**scope, "item": item}) for item in items]
                    outputs = {key: json.dumps([each[key] for each in every]) for key in every[0]}
                else:
                    outputs = self._step(step, scope)
                scope |= {prefix + key: value for key, value in outputs.items()}
        return {
            each["name"]: scope[each["valueFrom"]["parameter"].strip("{}")]
            for each in template["outputs"]["parameters"]
        }

    def _step(self, step: dict[str, Any], scope: Scope) -> dict[str, str]:
        passed = {each["name"]: substitute(each["value"], scope) for each in step["arguments"]["parameters"]}
        return self.run(step["template"], passed)

    def _container(self, template: dict[str, Any], scope: Scope) -> dict[str, str]:
        container, pod = template["container"], self.directory / f"pod-{len(self.pods)}"
        pod.mkdir()
        pod.chmod(0o755)
        patch = json.loads(substitute(template.get("podSpecPatch", "{}"), scope))
        self.pods.append(patch.get("nodeSelector", {}))
        podman = ["podman", "--runtime", "/usr/sbin/runc", "run", "--rm", "--network", "host", "--pull", "never"]
        podman += ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000"]
        if "workingDir" in container:
            podman += ["-w", container["workingDir"]]
        podman += self._volumes(template, scope, pod) + self._environment(container, scope) + self._security(template)
        podman += ["--entrypoint", container["command"][0], self.executor]
        argv = [substitute(argument, scope) for argument in container["args"]]
        done = subprocess.run([*podman, *argv], capture_output=True, text=True)
        self.log += done.stderr
        assert done.returncode == 0, done.stderr
        results = pod / "results"
        if (results / "progress").exists():
            self.progress = (results / "progress").read_text()
        return {
            each["name"]: (results / Path(each["valueFrom"]["path"]).name).read_text()
            for each in template["outputs"]["parameters"]
        }

    def _volumes(self, template: dict[str, Any], scope: Scope, pod: Path) -> list[str]:
        """Those of the template. A Secret or ConfigMap that does not exist is an empty directory."""
        places: dict[str, Path] = {}
        for volume in template["volumes"]:
            place = pod / volume["name"]
            place.mkdir()
            kind = volume.get("secret") or volume.get("configMap")
            if kind:
                assert kind["optional"]
                for key, text in self.secrets.get(
                    substitute(kind.get("secretName") or kind["name"], scope), {}
                ).items():
                    (place / key).write_text(text)
            elif "persistentVolumeClaim" in volume:
                place = self.claims[substitute(volume["persistentVolumeClaim"]["claimName"], scope)]
            else:
                assert volume["emptyDir"] == {}
                place.chmod(0o777)
            places[volume["name"]] = place
        made = []
        for mount in template["container"]["volumeMounts"]:
            place = places[mount["name"]] / substitute(mount.get("subPath", ""), scope)
            place.mkdir(parents=True, exist_ok=True)
            made += ["-v", f"{place}:{mount['mountPath']}{':ro' if mount.get('readOnly') else ''}"]
        for artifact in template["inputs"].get("artifacts", ()):
            if self.source:
                made += ["-v", f"{self.source}:{artifact['path']}"]
            else:
                assert artifact["optional"]
                (pod / "cwd").mkdir()  # as runtimes make the working directory, and podman does not
                made += ["-v", f"{pod}/cwd:{template['container']['workingDir']}"]
        return made

    def _environment(self, container: dict[str, Any], scope: Scope) -> list[str]:
        """The container's variables, and two of Argo's."""
        values = {"ARGO_NODE_ID": "node", "ARGO_PROGRESS_FILE": "/limpet/results/progress"}
        for variable in container["env"]:
            if "value" in variable:
                values[variable["name"]] = substitute(variable["value"], scope)
            else:
                reference = variable["valueFrom"]["secretKeyRef"]
                assert reference["optional"]
                secret = self.secrets.get(substitute(reference["name"], scope), {})
                if reference["key"] in secret:
                    values[variable["name"]] = secret[reference["key"]]
        return [word for name, value in values.items() for word in ("-e", f"{name}={value}")]

    def _security(self, template: dict[str, Any]) -> list[str]:
        pod, container = template["securityContext"], template["container"]["securityContext"]
        made = ["--user", f"{pod['runAsUser']}:{pod['runAsGroup']}", "--security-opt", "no-new-privileges"]
        made += ["--cap-drop", "all", *(f"--cap-add={each}" for each in container["capabilities"].get("add", []))]
        confined = self.cluster == "RuntimeDefault" or "seccompProfile" in pod
        return [*made, "--security-opt", f"seccomp={shared('tools/pod-seccomp.json') if confined else 'unconfined'}"]
