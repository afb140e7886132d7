"""Tests against conformance vectors: one test for each case, and a summary by file. See `vectors.py`."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from tests.conformance import vectors

_PROPERTY = "vectors"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", 'vectors(file, section="cases"): one test for each case of a vectors file')


def _marked(marker: pytest.Mark) -> tuple[str, str]:
    """The file and the section that a marker names."""
    return marker.args[0], marker.kwargs.get("section", "cases")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    marker = metafunc.definition.get_closest_marker("vectors")
    if marker is None:
        return
    file, section = _marked(marker)
    path = vectors.directory(metafunc.config) / f"{file}.json"
    deviations: dict[str, str] = getattr(metafunc.module, "DEVIATIONS", {})
    metafunc.parametrize("case", list(vectors.parameters(path, section, deviations)))


@pytest.fixture
def document(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The whole file that the test's cases are from."""
    marker = request.node.get_closest_marker("vectors")
    return vectors.read(vectors.directory(request.config) / f"{_marked(marker)[0]}.json")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Name the vectors file in every report, and refuse deviations that no case has."""
    known: dict[Any, set[str]] = {}
    for item in items:
        marker = item.get_closest_marker("vectors")
        if marker is None or not isinstance(item, pytest.Function):
            continue
        item.user_properties.append((_PROPERTY, _marked(marker)[0]))
        known.setdefault(item.module, set()).add(item.callspec.id)
    for module, names in known.items():
        stale = getattr(module, "DEVIATIONS", {}).keys() - names
        # A test named on the command line is only a part of its module, on purpose; -k and -m filter after this.
        if stale and "absent" not in names and not any("::" in argument for argument in config.args):
            raise pytest.UsageError(f"{module.__name__}: no case for the deviations {sorted(stale)}")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Passed and total by file, and every known deviation with its reason."""
    counts: dict[str, Counter[str]] = {}
    deviations: list[str] = []
    for outcome in ("passed", "failed", "error", "skipped", "xfailed", "xpassed"):
        for report in terminalreporter.stats.get(outcome, []):
            file = dict(getattr(report, "user_properties", [])).get(_PROPERTY)
            if file is None:
                continue
            counts.setdefault(file, Counter())[outcome] += 1
            if outcome == "xfailed":
                deviations.append(f"{file}: {report.nodeid.partition('[')[2].removesuffix(']')}: {report.wasxfail}")
    if not counts:
        return
    terminalreporter.section("conformance vectors")
    for file, outcomes in sorted(counts.items()):
        others = ", ".join(f"{number} {outcome}" for outcome, number in outcomes.items() if outcome != "passed")
        passed = f"{outcomes['passed']}/{outcomes.total()} passed"
        terminalreporter.write_line(f"{file:16} {passed:20} {others}".rstrip())
    for deviation in deviations:
        terminalreporter.write_line(f"known deviation: {deviation}")
