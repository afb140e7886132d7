"""Words: quotes, escapes and variables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from builder.dockerfile.words import Lexer, WordError, environment


def check(case: dict[str, Any], lexer: Lexer, env: Mapping[str, str]) -> None:
    if case.get("error"):
        with pytest.raises(WordError):
            lexer.process(case["input"], env)
        return
    expansion = lexer.process(case["input"], env)
    if "expected" in case:
        assert expansion.text == case["expected"]
    if "expected_words" in case:
        assert list(expansion.words) == (case["expected_words"] or [])
    if "matched" in case:
        assert sorted(expansion.matched) == case["matched"]
        assert sorted(expansion.unmatched) == case["unmatched"]


@pytest.mark.vectors("shell_words", section="env_table")
def test_expansion(case: dict[str, Any], document: dict[str, Any]) -> None:
    check(case, Lexer(), document["env_table_env"])


@pytest.mark.vectors("shell_words", section="words_table")
def test_words(case: dict[str, Any]) -> None:
    check(case, Lexer(), environment(case["env"]))


@pytest.mark.vectors("shell_words", section="matches_table")
def test_matches(case: dict[str, Any]) -> None:
    check(case, Lexer(), case["env"])


@pytest.mark.vectors("shell_words", section="misc")
def test_misc(case: dict[str, Any]) -> None:
    check(case, Lexer(), case["env"])


@pytest.mark.vectors("shell_words", section="generated")
def test_options(case: dict[str, Any]) -> None:
    lexer = Lexer(
        escape=case["escape"],
        raw_quotes=case["raw_quotes"],
        raw_escapes=case["raw_escapes"],
        skip_unset=case["skip_unset_env"],
        quotes=not case["skip_process_quotes"],
    )
    check(case, lexer, environment(case["env"]))
