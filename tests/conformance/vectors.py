"""Conformance vectors: files of cases that other implementations answered.

A test module names its file once for each test and gets one test per case:

    DEVIATIONS = {"case name": "why Limpet's answer differs on purpose"}

    @pytest.mark.vectors("image_config")                      # the list called "cases"
    def test_image(case): ...

    @pytest.mark.vectors("shell_words", section="env_table")  # another list of the file
    def test_table(case, document): ...                       # document: the whole file

Without the vectors the tests are skipped. A case in DEVIATIONS must fail: when it passes, or is not there any more,
the suite fails.
"""

from __future__ import annotations

import functools
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = Path(__file__).parents[2]


def directory(config: pytest.Config) -> Path:
    """Where the vectors are looked for."""
    given = config.getoption("--vectors")
    if given:
        path = Path(given)
        if not path.is_dir():
            raise pytest.UsageError(f"--vectors {given}: no such directory")
        return path
    shared = os.environ.get("LIMPET_SHARED")
    return (Path(shared) if shared else CHECKOUT.parent / "shared") / "vectors"


@functools.cache
def read(path: Path) -> dict[str, Any]:
    with path.open(encoding="utf-8") as file:
        document: dict[str, Any] = json.load(file)
    return document


def parameters(path: Path, section: str, deviations: Mapping[str, str]) -> Iterator[Any]:
    """The cases of one list as pytest parameters; what is in `deviations` must fail."""
    if not path.is_file():
        yield pytest.param(None, id="absent", marks=pytest.mark.skip(reason=f"no vectors: {path} is not there"))
        return
    for name, case in named(read(path)[section], section):
        reason = deviations.get(name)
        marks = [pytest.mark.xfail(reason=reason, strict=True)] if reason else []
        yield pytest.param(case, id=name, marks=marks)


def named(cases: list[dict[str, Any]], section: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Cases with unique names: their own, or the section and a number; `~2` for the second of a name."""
    seen: Counter[str] = Counter()
    for number, case in enumerate(cases):
        name = str(case.get("name") or f"{section}-{number}")
        seen[name] += 1
        yield (name if seen[name] == 1 else f"{name}~{seen[name]}"), case
