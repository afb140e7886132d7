"""Every case of the corpus, through the executor's command line."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.kaniko.cases import Case, read_cases
from tests.kaniko.conftest import Servers, run
from tests.kaniko.forks import CHECKOUT, Forks
from tests.kaniko.judge import judge

CASES = read_cases()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="contexts have owners that only root can give")
@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in CASES])
def test_case(case: Case, executor: Forks, servers: Servers, tmp_path: Path) -> None:
    outcome = run(case, executor, servers, tmp_path)
    faults = judge(case.expect, outcome)
    assert not faults, "\n".join(faults)
    left = [path.name for path in tmp_path.glob("limpet-*")]
    assert not left, f"the work directory is still there: {left}"


def test_the_corpus_is_large_and_every_case_expects_something() -> None:
    assert len(CASES) >= 120
    assert len({case.name for case in CASES}) == len(CASES)
    assert [case.name for case in CASES if not case.expect] == []


def test_every_difference_is_in_the_migration_table() -> None:
    text = (CHECKOUT / "docs/migrating-from-kaniko.md").read_text()
    rows = re.findall(r"^\| `([a-z0-9-]+)` \| [^|]+ \| [^|]+ \|$", text, re.MULTILINE)
    assert sorted({case.kaniko for case in CASES if case.kaniko} - set(rows)) == []
    assert len(rows) == len(set(rows))
