"""The generated page and the help are those of the table."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from builder.cli.commands import COMMANDS
from builder.cli.flagdocs import page
from builder.cli.flags import FLAGS
from tests.cli.conftest import Limpet

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).parent / "golden"


def test_the_page_of_flags_is_fresh() -> None:
    written = (ROOT / "docs" / "flags.md").read_text(encoding="utf-8")
    assert written == page(), "run `python -m builder.cli.flagdocs > docs/flags.md`"


def test_every_flag_is_on_the_page() -> None:
    text = page()
    assert [flag.name for flag in FLAGS if f"`--{flag.name}`" not in text] == []


@pytest.mark.parametrize("name", ["limpet", "login", "push", "version"])
def test_help_is_as_it_was(limpet: Limpet, name: str) -> None:
    """Update with LIMPET_UPDATE_GOLDEN=1 and read the difference."""
    result = limpet("--help") if name == "limpet" else limpet(name, "--help")
    assert (result.returncode, result.stderr) == (0, "")
    golden = GOLDEN / f"help-{name}.txt"
    if os.environ.get("LIMPET_UPDATE_GOLDEN"):
        golden.write_text(result.stdout, encoding="utf-8")
    assert result.stdout == golden.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_within_100_columns(limpet: Limpet, name: str) -> None:
    text = limpet(*name.split(), "--help").stdout
    assert COMMANDS[name].summary[1:] in text
    assert "--verbosity" in text
    assert max(map(len, text.splitlines())) <= 100


def test_no_arguments_is_a_question_for_help(limpet: Limpet) -> None:
    assert limpet().stdout == limpet("--help").stdout == limpet("help").stdout
