"""Ignore patterns, asked for a single path and along a walk."""

from __future__ import annotations

from typing import Any

import pytest

from builder.dockerfile.patterns import PatternError, PatternMatcher, read_ignore_file


def excluded_on_walk(matcher: PatternMatcher, path: str) -> bool:
    verdict = matcher.NOTHING
    names = path.split("/")
    for depth in range(1, len(names) + 1):
        verdict = matcher.match("/".join(names[:depth]), verdict)
    return verdict.excluded


def check(case: dict[str, Any]) -> None:
    if case.get("error"):
        with pytest.raises(PatternError):
            PatternMatcher(case["patterns"])
        return
    matcher = PatternMatcher(case["patterns"])
    assert matcher.excludes(case["path"]) is case["match"]
    assert excluded_on_walk(matcher, case["path"]) is case["match"]


@pytest.mark.vectors("patternmatcher")
def test_upstream_tables(case: dict[str, Any]) -> None:
    check(case)


@pytest.mark.vectors("patternmatcher", section="generated")
def test_generated(case: dict[str, Any]) -> None:
    check(case)


@pytest.mark.vectors("patternmatcher", section="ignorefile")
def test_ignore_file(case: dict[str, Any]) -> None:
    assert list(read_ignore_file(case["text"].encode())) == case["patterns"]
