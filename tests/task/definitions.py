"""The project's YAML by file, and references in it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.task.conftest import ROOT

TEKTON = ROOT / "task/tekton"
ARGO = ROOT / "task/argo"
TEKTON_VARIABLE = re.compile(r"\$\(([^()]+)\)")
ARGO_VARIABLE = re.compile(r"\{\{([^{}]+)\}\}")


@dataclass(frozen=True)
class Document:
    """One object of a file."""

    path: Path
    value: dict[str, Any]

    @property
    def kind(self) -> str:
        return str(self.value["kind"])

    def __str__(self) -> str:
        name = self.value["metadata"].get("name") or self.value["metadata"]["generateName"]
        return f"{self.path.relative_to(ROOT)}:{self.kind}:{name}"


def documents(*places: Path) -> list[Document]:
    """All objects of the files and below the directories `places`."""
    files = sorted(file for place in places for file in ([place] if place.is_file() else place.rglob("*.yaml")))
    return [Document(file, value) for file in files for value in yaml.safe_load_all(file.read_text())]


def tekton(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((TEKTON / f"{name}.yaml").read_text())
    return found


def strings(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Every string in `value` with the keys that lead to it; descriptions are prose and left out."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key, member in value.items():
            if key not in ("description", "annotations"):
                yield from strings(member, (*path, str(key)))
    elif isinstance(value, list):
        for number, member in enumerate(value):
            yield from strings(member, (*path, str(number)))
