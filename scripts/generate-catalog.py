"""Write catalog/ from task/: what people install, in the layouts of the Tekton catalog and of Artifact Hub.

    scripts/generate-catalog.py [--image REF] [--repository URL] [--output DIR]

Definitions and samples are copies; README files are made from the definitions and docs/catalog. `--image` puts a
published executor image, best with its digest, where task/ has a placeholder; `--repository` the address of this
repository. ClusterWorkflowTemplate is the WorkflowTemplate under another kind.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from string import Template
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent
TASK = ROOT / "task"
PIECES = ROOT / "docs/catalog"
IMAGE = "registry.example.com/limpet/executor:0.1.0"
REPOSITORY = "https://git.example.com/limpet/limpet.git"
# What is installed: kind of the catalog, name, definition, directory of its samples.
ENTRIES = (
    ("task", "limpet", "limpet.yaml", "task"),
    ("task", "limpet-restricted", "limpet-restricted.yaml", "restricted"),
    ("stepaction", "limpet", "stepaction.yaml", "stepaction"),
)


class Catalog:
    """The files of catalog/ by path, as texts."""

    def __init__(self, image: str, repository: str) -> None:
        self.files: dict[str, str] = {}
        self._image = image
        self._repository = repository

    def add(self, path: str, text: str) -> None:
        self.files[path] = text.replace(IMAGE, self._image).replace(REPOSITORY, self._repository)

    def copy(self, source: Path, path: str) -> None:
        self.add(path, source.read_text())

    def write(self, directory: Path) -> None:
        shutil.rmtree(directory, ignore_errors=True)
        for path, text in self.files.items():
            (directory / path).parent.mkdir(parents=True, exist_ok=True)
            (directory / path).write_text(text)


def generate(image: str = IMAGE, repository: str = REPOSITORY) -> Catalog:
    """All of catalog/."""
    catalog = Catalog(image, repository)
    for kind, name, definition, samples in ENTRIES:
        tekton_entry(catalog, kind, name, TASK / "tekton" / definition, TASK / "tekton/samples" / samples)
    for kind in ("task", "stepaction"):
        catalog.copy(PIECES / "artifacthub-repo.yml", f"{kind}/artifacthub-repo.yml")
    argo_entry(catalog)
    return catalog


def tekton_entry(catalog: Catalog, kind: str, name: str, definition: Path, samples: Path) -> None:
    value = yaml.safe_load(definition.read_text())
    version = value["metadata"]["labels"]["app.kubernetes.io/version"]
    directory = f"{kind}/{name}/{version}"
    catalog.copy(definition, f"{directory}/{name}.yaml")
    for sample in sorted(samples.glob("*.yaml")):
        catalog.copy(sample, f"{directory}/samples/{sample.name}")
    if kind == "task":
        catalog.copy(TASK / "tekton/tests" / f"{name}.yaml", f"{directory}/tests/run.yaml")
    catalog.copy(PIECES / "OWNERS", f"{kind}/{name}/OWNERS")
    spec = value["spec"]
    readme = Template((PIECES / f"{kind}-{name}.md").read_text()).substitute(
        description=spec["description"].strip(),
        install=install(kind, name, version),
        parameters=table(("Parameter", "Type", "Default", "Meaning"), map(parameter_row, spec["params"])),
        workspaces=table(("Workspace", "Access", "Meaning"), map(workspace_row, spec.get("workspaces", ()))),
        results=table(("Result", "Type", "Meaning"), map(result_row, spec["results"])),
        capabilities=capabilities(spec if kind == "stepaction" else spec["steps"][0]),
    )
    catalog.add(f"{directory}/README.md", readme)


def install(kind: str, name: str, version: str) -> str:
    path = f"catalog/{kind}/{name}/{version}/{name}.yaml"
    text = (PIECES / "install.md").read_text()
    return Template(text).substitute(path=path, name=name, kind=kind, version=version, repository=REPOSITORY).strip()


def argo_entry(catalog: Catalog) -> None:
    text = (TASK / "argo/workflowtemplate.yaml").read_text()
    value = yaml.safe_load(text)
    version = value["metadata"]["labels"]["app.kubernetes.io/version"] + ".0"  # Artifact Hub wants three numbers
    directory = f"argo/limpet/{version}"
    catalog.add(f"{directory}/workflowtemplate.yaml", text)
    catalog.add(f"{directory}/clusterworkflowtemplate.yaml", cluster_template(text))
    catalog.add(f"{directory}/manifests.yaml", text)  # the name that Artifact Hub reads
    for sample in sorted((TASK / "argo/samples").glob("*.*")):
        catalog.copy(sample, f"{directory}/samples/{sample.name}")
    readme = Template((PIECES / "argo-limpet.md").read_text()).substitute(
        templates="\n\n".join(map(argo_template, value["spec"]["templates"])), version=version, repository=REPOSITORY
    )
    catalog.add(f"{directory}/README.md", readme)
    metadata = Template((PIECES / "artifacthub-pkg.yml").read_text()).substitute(version=version)
    catalog.add(f"{directory}/artifacthub-pkg.yml", metadata)
    catalog.copy(PIECES / "artifacthub-repo.yml", "argo/artifacthub-repo.yml")


def cluster_template(text: str) -> str:
    """The ClusterWorkflowTemplate of a WorkflowTemplate: kind apart, it is the same."""
    changed = text.replace("\nkind: WorkflowTemplate\n", "\nkind: ClusterWorkflowTemplate\n", 1)
    assert changed != text
    return changed


def argo_template(template: dict[str, Any]) -> str:
    """A section of the README."""
    rows = []
    for parameter in template["inputs"]["parameters"]:
        default = f"`{parameter['value']}`" if parameter["value"] != "" else ""
        choice = "; one of " + ", ".join(map(str, parameter["enum"])) if "enum" in parameter else ""
        rows.append((f"`{parameter['name']}`", default, parameter["description"].rstrip(".") + choice + "."))
    rows += [
        (f"`{a['name']}` (artifact)", "", "The source tree; optional.") for a in template["inputs"].get("artifacts", ())
    ]
    outputs = ((f"`{o['name']}`", o["description"]) for o in template["outputs"]["parameters"])
    return "\n\n".join(
        (
            f"### `{template['name']}`",
            template["metadata"]["annotations"]["workflows.argoproj.io/description"],
            table(("Input", "Default", "Meaning"), rows),
            table(("Output", "Meaning"), outputs),
        )
    )


def parameter_row(parameter: dict[str, Any]) -> tuple[str, ...]:
    default = parameter.get("default", "required")
    shown = "required" if default == "required" else "" if default == "" else f"`{default}`"
    return f"`{parameter['name']}`", parameter["type"], shown, parameter["description"]


def workspace_row(workspace: dict[str, Any]) -> tuple[str, ...]:
    access = "read only" if workspace.get("readOnly") else "written"
    return (
        f"`{workspace['name']}`",
        access + (", optional" if workspace.get("optional") else ""),
        workspace["description"],
    )


def result_row(result: dict[str, Any]) -> tuple[str, ...]:
    keys = f" of {', '.join(result['properties'])}" if "properties" in result else ""
    return f"`{result['name']}`", result.get("type", "string") + keys, result["description"]


def capabilities(step: dict[str, Any]) -> str:
    return ", ".join(f"`{name}`" for name in step["securityContext"]["capabilities"].get("add", ()))


def table(head: tuple[str, ...], rows: Any) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def main() -> int:
    parser = argparse.ArgumentParser(description="Write catalog/ from task/.")
    parser.add_argument("--image", default=IMAGE, help="the executor image that definitions name")
    parser.add_argument("--repository", default=REPOSITORY, help="address of this repository")
    parser.add_argument("--output", type=Path, default=ROOT / "catalog")
    asked = parser.parse_args()
    generate(asked.image, asked.repository).write(asked.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
