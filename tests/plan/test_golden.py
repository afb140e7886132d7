"""Printed plans, compared letter for letter with those in golden/.

Each directory has a Dockerfile, options.json (PlanOptions, and configurations of base images by reference) and what
is printed for them. `LIMPET_UPDATE_GOLDEN=1 pytest tests/plan/test_golden.py` writes the latter anew: read the diff.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from builder.oci.config import ImageConfig
from builder.oci.platform import Platform
from builder.plan import BaseImage, Plan, render_json, render_text
from tests.plan.planning import AMD64, plan_of

GOLDEN = Path(__file__).parent / "golden"
CASES = sorted(path.parent.name for path in GOLDEN.glob("*/Dockerfile"))


def planned(name: str) -> Plan:
    given = json.loads((GOLDEN / name / "options.json").read_text())
    options: dict[str, Any] = {"build_platform": AMD64, **given["options"]}
    if "target_platform" in options:
        options["target_platform"] = Platform.parse(options["target_platform"])
    for option in ("targets", "ignore_patterns"):
        if option in options:
            options[option] = tuple(options[option])
    images = {reference: BaseImage(ImageConfig.from_json(config)) for reference, config in given["bases"].items()}
    return plan_of((GOLDEN / name / "Dockerfile").read_text(), images, **options)


def compare(path: Path, printed: str) -> None:
    if os.environ.get("LIMPET_UPDATE_GOLDEN"):
        path.write_text(printed + "\n")
    assert path.read_text() == printed + "\n"


@pytest.mark.parametrize("name", CASES)
def test_text(name: str) -> None:
    compare(GOLDEN / name / "plan.txt", render_text([planned(name)]))


@pytest.mark.parametrize("name", CASES)
def test_json(name: str) -> None:
    printed = render_json([planned(name)])
    compare(GOLDEN / name / "plan.json", printed)
    assert json.loads(printed)["targets"]


def test_there_are_cases() -> None:
    assert len(CASES) >= 4
