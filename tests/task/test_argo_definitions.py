"""The Argo definitions against Argo's schema, Hera's models, and rules that neither has."""

from __future__ import annotations

import json
import re
import runpy
from typing import Any

import jsonschema
import pytest
import yaml

from builder.cli.arguments import parse
from builder.cli.settings import settings_of
from tests.task.conftest import shared
from tests.task.definitions import ARGO, ARGO_VARIABLE, Document, documents, strings
from tests.task.workflow import EXPRESSIONS

TEMPLATE = yaml.safe_load((ARGO / "workflowtemplate.yaml").read_text())
TEMPLATES = {template["name"]: template for template in TEMPLATE["spec"]["templates"]}
CONTAINERS = [name for name, template in TEMPLATES.items() if "container" in template]
DOCUMENTS = documents(ARGO)
OF_ARGO = [found for found in DOCUMENTS if found.value["apiVersion"].startswith("argoproj.io/")]
OTHERS = [found for found in DOCUMENTS if found not in OF_ARGO]


def closed(schema: dict[str, Any]) -> dict[str, Any]:
    """Argo's schema without unknown fields; integers where it says int-or-string; metadata is free."""
    definitions = schema["definitions"]
    for name, definition in definitions.items():
        if "properties" in definition:
            definition.setdefault("additionalProperties", False)
        if definition.get("format") == "int-or-string" or name.endswith("IntOrString"):
            definition.pop("type", None)
        if name.endswith("ObjectMeta"):
            definition.pop("additionalProperties", None)
    return schema


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    return closed(json.loads(shared("schemas/argo-workflows.json").read_text()))


@pytest.mark.parametrize("document", OF_ARGO, ids=str)
def test_argo_accepts_every_object(document: Document, schema: dict[str, Any]) -> None:
    name = next(each for each in schema["definitions"] if each.endswith(f"v1alpha1.{document.kind}"))
    jsonschema.validate(document.value, {"$ref": f"#/definitions/{name}", "definitions": schema["definitions"]})


@pytest.mark.parametrize("document", OF_ARGO, ids=str)
def test_heras_models_know_every_field(document: Document) -> None:
    models = pytest.importorskip("hera.workflows.models")
    model = getattr(models, document.kind).model_validate(document.value)
    made = json.loads(model.model_dump_json(by_alias=True, exclude_none=True, exclude_unset=True))
    assert leaves(made) == leaves(document.value)


def leaves(value: Any, path: str = "") -> set[str]:
    """The paths of all members: a field that a model does not know is not among what it gives back."""
    if isinstance(value, dict):
        return set().union(*(leaves(member, f"{path}.{key}") for key, member in value.items())) or {path}
    if isinstance(value, list):
        return set().union(*(leaves(member, f"{path}.{number}") for number, member in enumerate(value))) or {path}
    return {path}


@pytest.mark.parametrize("document", OTHERS, ids=str)
def test_kubernetes_accepts_every_other_object(document: Document) -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    kubernetes_validate.validate(document.value, "1.31", strict=True)


def templates(document: Document) -> list[dict[str, Any]]:
    spec = document.value["spec"]
    found: list[dict[str, Any]] = spec.get("workflowSpec", spec)["templates"]
    return found


def calls(template: dict[str, Any]) -> list[dict[str, Any]]:
    """The steps or tasks of a template."""
    return [call for group in template.get("steps", []) for call in group] + template.get("dag", {}).get("tasks", [])


def outputs_of(call: dict[str, Any], own: dict[str, dict[str, Any]]) -> set[str]:
    reference = call.get("templateRef")
    target = TEMPLATES[reference["template"]] if reference else own[call["template"]]
    return {each["name"] for each in target.get("outputs", {}).get("parameters", [])}


@pytest.mark.parametrize("document", OF_ARGO, ids=str)
def test_every_reference_resolves_and_every_input_is_used(document: Document) -> None:
    own = {template["name"]: template for template in templates(document)}
    for template in own.values():
        inputs = template.get("inputs", {})
        parameters = {f"inputs.parameters.{each['name']}" for each in inputs.get("parameters", [])}
        artifacts = {f"inputs.artifacts.{each['name']}" for each in inputs.get("artifacts", [])}
        known = parameters | artifacts | {"item"}
        for call in calls(template):
            for word in ("steps", "tasks"):
                known |= {f"{word}.{call['name']}.outputs.parameters.{name}" for name in outputs_of(call, own)}
        used = {name.strip() for _, text in strings(template) for name in ARGO_VARIABLE.findall(text)}
        expressions = {name for name in used if name.startswith("=")}
        assert expressions <= set(EXPRESSIONS)
        assert used - expressions <= known
        assert parameters <= used


@pytest.mark.parametrize("document", OF_ARGO, ids=str)
def test_calls_pass_what_their_target_takes(document: Document) -> None:
    own = {template["name"]: template for template in templates(document)}
    for template in own.values():
        for call in calls(template):
            reference = call.get("templateRef")
            target = TEMPLATES[reference["template"]] if reference else own[call["template"]]
            declared = {each["name"]: each for each in target.get("inputs", {}).get("parameters", [])}
            passed = {each["name"] for each in call.get("arguments", {}).get("parameters", [])}
            assert passed <= declared.keys()
            assert {name for name, each in declared.items() if "value" not in each} <= passed


@pytest.mark.parametrize("name", TEMPLATES)
def test_templates_read_inputs_only_and_say_what_they_are(name: str) -> None:
    template = TEMPLATES[name]
    assert "workflow.parameters" not in json.dumps(template)
    for parameter in template["inputs"]["parameters"]:
        assert parameter["description"] and isinstance(parameter["value"], str)
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", parameter["name"])
        assert "enum" not in parameter or parameter["value"] in parameter["enum"]
    assert template["metadata"]["annotations"]["workflows.argoproj.io/description"]


@pytest.mark.parametrize("name", CONTAINERS)
def test_containers_have_a_command_and_few_privileges(name: str) -> None:
    container = TEMPLATES[name]["container"]
    assert container["command"] == ["/limpet/bin/limpet"]
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["capabilities"]["drop"] == ["ALL"]
    if name in ("build-restricted", "index"):
        assert TEMPLATES[name]["securityContext"]["runAsNonRoot"] is True
        assert "add" not in container["securityContext"]["capabilities"]
    else:
        assert TEMPLATES[name]["retryStrategy"]["expression"].endswith("asInt(lastRetry.exitCode) == 75")


def argv(name: str, **given: str) -> list[str]:
    """The container's arguments as Argo makes them."""
    values = {each["name"]: each["value"] for each in TEMPLATES[name]["inputs"]["parameters"]}
    values |= {key.replace("_", "-"): text for key, text in given.items()}
    return [
        ARGO_VARIABLE.sub(lambda match: values[match[1].removeprefix("inputs.parameters.")], argument)
        for argument in TEMPLATES[name]["container"]["args"]
    ]


@pytest.mark.parametrize("name", [name for name in CONTAINERS if name != "index"])
def test_the_command_line_is_understood(name: str) -> None:
    made = argv(
        name,
        image="r.example/a:1",
        tags='["2", "--no-push"]',
        build_args='{"A": "1, \\"2\\""}',
        extra_args='["--single-snapshot"]',
    )
    command, *rest = [argument for argument in made if not argument.startswith("--secrets-dir")]
    assert command == "build"
    settings = settings_of(parse("build", rest, {}), {})
    assert settings.output.destinations == ("r.example/a:1", "r.example/a:2", "r.example/a:--no-push")
    assert settings.output.push and settings.image.single_snapshot
    assert settings.build.build_args == {"A": '1, "2"'}


def test_the_index_command_line_is_understood() -> None:
    made = argv("index", image="r.example/a:1", members='["r.example/a@sha256:1", "r.example/a@sha256:2"]')
    assert made[:2] == ["index", "create"]
    arguments = parse("index create", made[2:], {})
    assert arguments.positionals == ("r.example/a:1", "r.example/a@sha256:1", "r.example/a@sha256:2")


def test_the_hera_example_is_a_workflow(schema: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("hera.workflows")
    runpy.run_path(str(ARGO / "samples/hera_build.py"), run_name="__main__")
    made = yaml.safe_load(capsys.readouterr().out)
    document = Document(ARGO / "samples/hera_build.py", made)
    test_argo_accepts_every_object(document, schema)
    test_heras_models_know_every_field(document)
    test_every_reference_resolves_and_every_input_is_used(document)
    test_calls_pass_what_their_target_takes(document)
