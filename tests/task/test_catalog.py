"""catalog/ is what scripts/generate-catalog.py makes of task/."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import pytest
import yaml

import builder
from tests.task.conftest import ROOT


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_catalog", ROOT / "scripts/generate-catalog.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def files(directory: Path) -> dict[str, str]:
    return {str(path.relative_to(directory)): path.read_text() for path in directory.rglob("*") if path.is_file()}


def test_the_catalog_is_fresh(generator: ModuleType) -> None:
    """When this fails: run scripts/generate-catalog.py."""
    assert files(ROOT / "catalog") == generator.generate().files


def test_another_image_is_named_everywhere(generator: ModuleType) -> None:
    image = "r.example/limpet@sha256:" + "0" * 64
    made = generator.generate(image).files
    named = [path for path, text in made.items() if image in text]
    assert {path for path, text in files(ROOT / "catalog").items() if generator.IMAGE in text} == set(named)
    task = yaml.safe_load(made["task/limpet/0.1/limpet.yaml"])
    assert {"BUILDER_IMAGE": image}.items() <= {
        param["name"]: json.dumps(param.get("default")).strip('"') for param in task["spec"]["params"]
    }.items()


@pytest.mark.parametrize("path", sorted((ROOT / "catalog").glob("*/*/*/README.md")), ids=str)
def test_readmes_say_everything(path: Path) -> None:
    text = path.read_text()
    for definition in path.parent.glob("*.yaml"):
        if definition.name in ("manifests.yaml", "clusterworkflowtemplate.yaml"):
            continue
        spec = yaml.safe_load(definition.read_text())["spec"]
        members = [*spec.get("params", []), *spec.get("workspaces", []), *spec.get("results", [])]
        for template in spec.get("templates", []):
            members += [template, *template["inputs"]["parameters"], *template["outputs"]["parameters"]]
        assert members
        assert [member["name"] for member in members if f"`{member['name']}`" not in text] == []
    for words in ("## Install", "## Security context", "## From", "Apache License 2.0"):
        assert words in text
    assert not re.search(r"\$\{|\$[a-z]", text)


def test_artifact_hub_metadata() -> None:
    (path,) = (ROOT / "catalog/argo").glob("*/*/artifacthub-pkg.yml")
    package = yaml.safe_load(path.read_text())
    assert package["version"] == path.parent.name == builder.__version__
    assert package["license"] == "Apache-2.0"
    assert (path.parent / "manifests.yaml").exists()
    assert "Apache License" in (ROOT / "LICENSE").read_text()
