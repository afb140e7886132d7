"""The Tekton definitions against Tekton's own schemas, and against rules that no schema has."""

from __future__ import annotations

import copy
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest

import builder
from builder.cli.arguments import parse
from builder.cli.flags import flags_of
from builder.cli.settings import settings_of
from builder.outputs import RESULTS
from tests.task.conftest import ROOT, shared
from tests.task.definitions import TEKTON, TEKTON_VARIABLE, Document, documents, strings, tekton
from tests.task.taskrun import PATHS

DEFINITIONS = ("limpet", "limpet-restricted", "stepaction")
DOCUMENTS = documents(TEKTON)
OF_TEKTON = [found for found in DOCUMENTS if found.value["apiVersion"].startswith("tekton.dev/")]
OTHERS = [found for found in DOCUMENTS if found not in OF_TEKTON]
FULL_IMAGE = r"[a-z0-9-]+(\.[a-z0-9-]+)+/[a-z0-9./-]+(:[\w.-]+|@sha256:[0-9a-f]{64})"
# Pod Security, level baseline: what a container may add.
BASELINE = {
    *("AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "SETFCAP"),
    *("SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"),
}


def step(name: str) -> dict[str, Any]:
    """The one step of a definition."""
    spec = tekton(name)["spec"]
    steps = spec.get("steps", [spec])
    assert len(steps) == 1
    found: dict[str, Any] = steps[0]
    return found


def closed(schema: Any) -> Any:
    """Kubernetes' structural schema as strict JSON schema: no unknown fields; metadata is free."""
    if isinstance(schema, list):
        return [closed(member) for member in schema]
    if not isinstance(schema, dict):
        return schema
    result = {key: closed(member) for key, member in schema.items()}
    if isinstance(schema.get("properties"), dict) and not schema.get("x-kubernetes-preserve-unknown-fields"):
        result.setdefault("additionalProperties", False)
        result["properties"].pop("metadata", None) if "apiVersion" in schema["properties"] else None
        if "apiVersion" in schema["properties"]:
            result["properties"]["metadata"] = {"type": "object"}
    if schema.get("x-kubernetes-int-or-string"):
        result.pop("type", None)
    return result


@pytest.mark.parametrize("document", OF_TEKTON, ids=str)
def test_tekton_accepts_every_object(document: Document) -> None:
    schemas = json.loads(shared("schemas/tekton-crds.json").read_text())
    schema = schemas[f"{document.kind}/{document.value['apiVersion'].partition('/')[2]}"]
    jsonschema.validate(document.value, closed(schema))


def test_the_schemas_are_strict() -> None:
    schemas = json.loads(shared("schemas/tekton-crds.json").read_text())
    wrong = copy.deepcopy(tekton("limpet"))
    wrong["spec"]["steps"][0]["resourcess"] = {}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, closed(schemas["Task/v1"]))


@pytest.mark.parametrize("document", OTHERS, ids=str)
def test_kubernetes_accepts_every_other_object(document: Document) -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    kubernetes_validate.validate(document.value, "1.31", strict=True)


def variables_of(spec: dict[str, Any]) -> set[str]:
    """What `$(...)` may name in a Task, StepAction or Pipeline."""
    found = {"context.pipelineRun.name", "context.taskRun.name"}
    for param in spec.get("params", []):
        name = f"params.{param['name']}"
        found |= {f"{name}[*]"} if param.get("type") == "array" else {name}
    for workspace in spec.get("workspaces", []):
        found |= {f"workspaces.{workspace['name']}.{key}" for key in ("path", "bound")}
    for result in spec.get("results", []):
        found |= {f"results.{result['name']}.path", f"step.results.{result['name']}.path"}
    for member in spec.get("steps", []):
        if "ref" in member:
            found |= {f"steps.{member['name']}.results.{name}" for name in RESULTS}
    for task in spec.get("tasks", []):
        names = ["commit", "committer-date", "url"] if task["name"] == "clone" else RESULTS
        for name in names:
            found |= {f"tasks.{task['name']}.results.{name}"}
            if "matrix" in task:
                found |= {f"tasks.{task['name']}.results.{name}[*]"}
    return found


def specs(document: Document) -> list[dict[str, Any]]:
    """The spec of a document and those that are embedded in it: each has names of its own."""
    spec = copy.deepcopy(document.value["spec"])
    embedded = [task.pop("taskSpec") for task in (spec, *spec.get("tasks", [])) if "taskSpec" in task]
    return embedded if document.kind == "TaskRun" else [spec, *embedded]


@pytest.mark.parametrize("document", [found for found in OF_TEKTON if found.kind != "PipelineRun"], ids=str)
def test_every_reference_resolves_and_every_parameter_is_used(document: Document) -> None:
    for spec in specs(document):
        known = variables_of(spec)
        used = {name for _, text in strings(spec) for name in TEKTON_VARIABLE.findall(text)}
        assert used <= known
        params = {f"params.{param['name']}" for param in spec.get("params", [])}
        assert params <= {name.removesuffix("[*]") for name in used}
        results = {f"{result['name']}.path" for result in spec.get("results", []) if "value" not in result}
        assert results <= {name.partition("results.")[2] for name in used}


@pytest.mark.parametrize("document", OF_TEKTON, ids=str)
def test_arrays_stand_alone_and_no_parameter_is_in_a_script(document: Document) -> None:
    for path, text in strings(document.value):
        assert "[*]" not in text or TEKTON_VARIABLE.fullmatch(text), path
        assert path[-1] != "script" or not TEKTON_VARIABLE.search(text), path


@pytest.mark.parametrize("document", OF_TEKTON, ids=str)
def test_runs_name_what_there_is(document: Document) -> None:
    """References to Limpet's definitions pass parameters and workspaces that these have, and all that are required."""
    spec = document.value["spec"]
    users = [spec, *spec.get("tasks", []), *spec.get("steps", [])]
    for user in users:
        reference = user.get("taskRef") or user.get("ref") or {}
        name = reference.get("name", "")
        if name not in ("limpet", "limpet-restricted"):
            continue
        target = tekton("stepaction" if "ref" in user else name)["spec"]
        declared = {param["name"]: param for param in target["params"]}
        passed = {param["name"] for param in user.get("params", [])}
        for extra in user.get("matrix", {}).get("include", []):
            passed |= {param["name"] for param in extra["params"]}
        assert passed <= declared.keys()
        assert {name for name, param in declared.items() if "default" not in param} <= passed
        assert {each["name"] for each in user.get("workspaces", [])} <= {
            each["name"] for each in target.get("workspaces", [])
        }


@pytest.mark.parametrize("name", DEFINITIONS)
def test_everything_is_documented_and_has_its_rules(name: str) -> None:
    value = tekton(name)
    spec = value["spec"]
    assert spec["description"]
    for member in (*spec["params"], *spec.get("workspaces", []), *spec["results"]):
        assert len(member["description"]) > 20, member["name"]
    for param in spec["params"]:
        assert param["type"] in ("string", "array")
        if "default" in param:
            assert isinstance(param["default"], list if param["type"] == "array" else str)
    for workspace in spec.get("workspaces", []):
        assert workspace["optional"]
        assert workspace.get("readOnly", False) == (workspace["name"] not in ("cache", "reports"))
    annotations = value["metadata"]["annotations"]
    assert annotations["tekton.dev/categories"] == "Image Build"
    assert re.fullmatch(r"\d+\.\d+\.\d+", annotations["tekton.dev/pipelines.minVersion"])
    assert all(re.fullmatch(r"[a-z0-9]+/[a-z0-9]+", each) for each in annotations["tekton.dev/platforms"].split(","))


# What the catalogue's own validator (catlin) asks for, and what its linter does with scripts.
CATEGORIES = {
    *("Automation", "Build Tools", "CLI", "Cloud", "Code Quality", "Continuous Integration", "Deployment"),
    *("Developer Tools", "Image Build", "Integration & Delivery", "Git", "Kubernetes", "Messaging", "Monitoring"),
    *("Networking", "Openshift", "Publishing", "Security", "Storage", "Testing"),
}


@pytest.mark.parametrize("name", DEFINITIONS)
def test_the_catalogues_metadata_is_there(name: str) -> None:
    metadata = tekton(name)["metadata"]
    annotations = metadata["annotations"]
    assert re.fullmatch(r"\d+\.\d+", metadata["labels"]["app.kubernetes.io/version"])
    assert set(annotations["tekton.dev/categories"].split(",")) <= CATEGORIES
    assert annotations["tekton.dev/displayName"] and annotations["tekton.dev/tags"]
    assert annotations["artifacthub.io/license"] == "Apache-2.0"


def images(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("image"), str):
            yield value["image"]
        for member in value.values():
            yield from images(member)
    elif isinstance(value, list):
        for member in value:
            yield from images(member)


@pytest.mark.parametrize("document", OF_TEKTON, ids=str)
def test_images_are_named_in_full(document: Document) -> None:
    """HOST/NAME with a tag or a digest, as must be the default of a parameter that names one."""
    for image in images(document.value["spec"]):
        if TEKTON_VARIABLE.fullmatch(image):
            name = image.removeprefix("$(params.").removesuffix(")")
            defaults = [
                param["default"]
                for spec in specs(document)
                for param in spec["params"]
                if param["name"] == name and "default" in param
            ]
            assert all(re.fullmatch(FULL_IMAGE, default) for default in defaults)
        else:
            assert re.fullmatch(FULL_IMAGE, image), image


@pytest.mark.parametrize("document", OF_TEKTON, ids=str)
def test_scripts_are_shell(document: Document) -> None:
    scripts = [text for path, text in strings(document.value) if path[-1] == "script"]
    for script in scripts:
        assert script.startswith("#!/usr/bin/env sh\n")
        assert subprocess.run(["sh", "-n"], input=script, text=True).returncode == 0
        if shellcheck := shutil.which("shellcheck"):
            assert subprocess.run([shellcheck, "-s", "sh", "-"], input=script, text=True).returncode == 0


@pytest.mark.parametrize("name", DEFINITIONS)
def test_a_step_has_an_explicit_command_and_few_privileges(name: str) -> None:
    found = step(name)
    assert found["command"] == ["/limpet/bin/limpet"]
    assert "script" not in found
    security = found["securityContext"]
    assert security["allowPrivilegeEscalation"] is False
    assert security["capabilities"]["drop"] == ["ALL"]
    assert set(security["capabilities"].get("add", [])) < BASELINE
    if name == "limpet-restricted":
        assert security["runAsNonRoot"] is True and security["runAsUser"] == 1000
        assert "add" not in security["capabilities"]
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert {"name": "HOME", "value": "/tekton/home"} in found["env"]


def test_the_doctor_is_asked_where_builds_run() -> None:
    (run,) = documents(TEKTON / "samples/task/doctor.yaml")
    (asked,) = run.value["spec"]["taskSpec"]["steps"]
    assert asked["securityContext"] == step("limpet")["securityContext"]
    parse("doctor", asked["args"][1:], {})


def test_the_definitions_are_one() -> None:
    """The restricted Task differs in its security context only, the StepAction in where paths come from."""
    task, restricted, action = (tekton(name) for name in DEFINITIONS)
    for value in (task, restricted):
        value["spec"].pop("description")
        value["spec"]["steps"][0].pop("securityContext")
    assert task["spec"] == restricted["spec"]
    spec = action["spec"]
    assert [param for param in spec["params"] if not param["name"].endswith(("_PATH", "WORK_DIR")) or
            param["name"] == "CONTEXT_SUB_PATH"] == task["spec"]["params"]  # fmt: skip
    assert spec["results"] == task["spec"]["results"]
    text = json.dumps(task["spec"]["steps"][0]["args"] + task["spec"]["steps"][0]["env"])
    for workspace, param in PATHS.items():
        text = text.replace(f"$(workspaces.{workspace}.path)", f"$(params.{param})")
    text = text.replace("/limpet/work", "$(params.WORK_DIR)").replace("$(results.", "$(step.results.")
    assert json.loads(text) == spec["args"] + spec["env"]


@pytest.mark.parametrize("name", DEFINITIONS)
def test_versions_agree(name: str) -> None:
    assert builder.__version__.startswith(tekton(name)["metadata"]["labels"]["app.kubernetes.io/version"] + ".")
    image = next(param for param in tekton(name)["spec"]["params"] if param["name"] == "BUILDER_IMAGE")
    assert image["default"].endswith(f":{builder.__version__}")
    assert f'image.version="{builder.__version__}"' in (ROOT / "image/Dockerfile").read_text()


@pytest.mark.parametrize("name", DEFINITIONS)
def test_kanikos_parameters_are_there(name: str) -> None:
    params = {param["name"]: param for param in tekton(name)["spec"]["params"]}
    defaults = {param: params[param].get("default") for param in ("IMAGE", "DOCKERFILE", "CONTEXT", "EXTRA_ARGS")}
    assert defaults == {"IMAGE": None, "DOCKERFILE": "./Dockerfile", "CONTEXT": "./", "EXTRA_ARGS": []}
    assert "BUILDER_IMAGE" in params


def argv(name: str, given: dict[str, Any]) -> list[str]:
    """The step's arguments as Tekton makes them, optional workspaces unbound."""
    spec = tekton(name)["spec"]
    values = {param["name"]: given.get(param["name"], param.get("default")) for param in spec["params"]}
    made: list[str] = []
    for argument in step(name)["args"]:
        if argument.endswith("[*])"):
            made += values[argument.removeprefix("$(params.").removesuffix("[*])")]
            continue

        def value(match: re.Match[str]) -> str:
            kind, _, rest = match[1].partition(".")
            return str(values[rest]) if kind == "params" else "" if kind == "workspaces" else f"/{match[1]}"

        made.append(TEKTON_VARIABLE.sub(value, argument))
    return made


@pytest.mark.parametrize("name", DEFINITIONS)
def test_the_command_line_is_understood(name: str) -> None:
    given = {"IMAGE": "r.example/a:1", "TAGS": ["2"], "BUILD_ARGS": ["A=1", "B=2 3"], "PUSH": "false"}
    command, *rest = argv(name, {**given, "EXTRA_ARGS": ["--no-push", "--single-snapshot"]})
    assert command == "build"
    settings = settings_of(parse("build", rest, {}), {})
    assert settings.output.destinations == ("r.example/a:1", "r.example/a:2")
    assert not settings.output.push and settings.image.single_snapshot and settings.image.reproducible
    assert settings.build.build_args == {"A": "1", "B": "2 3"}
    assert settings.output.files.results.keys() == set(RESULTS)
    known = flags_of("build")
    assert all(text.removeprefix("--").partition("=")[0] in known for text in rest if text.startswith("--"))


@pytest.mark.parametrize("name", DEFINITIONS)
def test_defaults_use_nothing_that_is_pending(name: str) -> None:
    _, *rest = argv(name, {"IMAGE": "r.example/a"})
    assert settings_of(parse("build", rest, {}), {}).output.push


# What tekton-lint does not know: tasks that a resolver finds, and results of a matrix. Names in capitals are kaniko's.
LINT_KNOWS_NOT = {
    ("no-missing-resource", "task/tekton/samples/task/build-and-deploy.yaml"),
    ("no-undefined-result", "task/tekton/samples/task/matrix.yaml"),
}


def test_tekton_lint_is_content() -> None:
    lint = ROOT / ".cache/test-servers/node_modules/.bin/tekton-lint"
    if not lint.exists():
        pytest.skip("tekton-lint is not installed (scripts/setup-test-servers.sh)")
    files = sorted(str(path.relative_to(ROOT)) for path in TEKTON.rglob("*.yaml"))
    done = subprocess.run([lint, "--format", "json", *files], cwd=ROOT, capture_output=True, text=True)
    findings, _ = json.JSONDecoder().raw_decode(done.stdout)
    rules = {(finding["rule"], finding["path"]) for finding in findings}
    assert {found for found in rules if found[0] != "prefer-kebab-case"} == LINT_KNOWS_NOT


@pytest.mark.skipif(not shutil.which("yamllint"), reason="yamllint is not installed")
def test_yamllint_is_content() -> None:
    done = subprocess.run(["yamllint", "--strict", "task", "catalog"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")
