"""The framework itself: what becomes of cases, names and deviations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.vectors import parameters


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "some.json"
    path.write_text(json.dumps({"cases": [{"name": "a"}, {"name": "b"}, {"name": "a"}, {"input": 1}]}))
    return path


def marks(parameter: Any) -> list[pytest.Mark]:
    return [decorator.mark for decorator in parameter.marks]


def test_every_case_has_a_name_of_its_own(file: Path) -> None:
    assert [parameter.id for parameter in parameters(file, "cases", {})] == ["a", "b", "a~2", "cases-3"]


def test_a_deviation_has_to_fail(file: Path) -> None:
    by_name = {parameter.id: marks(parameter) for parameter in parameters(file, "cases", {"b": "on purpose"})}
    assert by_name["a"] == []
    (mark,) = by_name["b"]
    assert mark.name == "xfail"
    assert mark.kwargs == {"reason": "on purpose", "strict": True}


def test_absent_vectors_are_skipped_with_the_reason(tmp_path: Path) -> None:
    (parameter,) = parameters(tmp_path / "none.json", "cases", {})
    (mark,) = marks(parameter)
    assert mark.name == "skip"
    assert "none.json" in mark.kwargs["reason"]
