"""Ignore patterns: laws of walking and pruning, and the characters that upstream gets wrong."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.dockerfile.patterns import PatternError, PatternMatcher, Verdict, read_ignore_file

NAMES = st.sampled_from(["a", "b", "ab", "a.b"])
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)
PARTS = st.sampled_from(["a", "b", "ab", "*", "?", "**", "a*", "*b", "[ab]", "[^a]", r"\a", "a.b"])
PATTERNS = st.lists(
    st.tuples(st.sampled_from(["", "", "!"]), st.lists(PARTS, min_size=1, max_size=3).map("/".join)).map("".join),
    max_size=5,
)


def walk(matcher: PatternMatcher, path: str) -> list[tuple[str, Verdict]]:
    """The verdicts on `path` and its parents, from the top down."""
    verdict, verdicts = matcher.NOTHING, []
    names = path.split("/")
    for depth in range(1, len(names) + 1):
        verdict = matcher.match("/".join(names[:depth]), verdict)
        verdicts.append(("/".join(names[:depth]), verdict))
    return verdicts


@given(PATTERNS, PATHS)
def test_nothing_below_a_pruned_directory_is_kept(patterns: list[str], path: str) -> None:
    matcher = PatternMatcher(patterns)
    verdicts = walk(matcher, path)
    if any(matcher.prunes(directory, verdict) for directory, verdict in verdicts[:-1]):
        assert verdicts[-1][1].excluded


@given(PATTERNS.map(lambda patterns: [p for p in patterns if not p.startswith("!")]), PATHS)
def test_without_exceptions_a_walk_and_a_single_question_agree(patterns: list[str], path: str) -> None:
    matcher = PatternMatcher(patterns)
    assert walk(matcher, path)[-1][1].excluded is matcher.excludes(path)


@given(st.lists(st.text(max_size=8), max_size=3), PATHS)
def test_nothing_but_pattern_errors(patterns: list[str], path: str) -> None:
    try:
        matcher = PatternMatcher(patterns)
    except PatternError:
        return
    matcher.excludes(path)
    walk(matcher, path)


@pytest.mark.parametrize(
    ("pattern", "path", "excluded"),
    [
        ("a|b*", "a|bc", True),
        ("a|b*", "bc", False),
        ("{a}?", "{a}b", True),
        ("a^b*", "a^bc", True),
        ("[*]", "*", True),
        ("[*]", "a", False),
        ("$(x)*", "$(x)y", True),
    ],
)
def test_characters_that_stand_for_themselves(pattern: str, path: str, excluded: bool) -> None:
    assert PatternMatcher([pattern]).excludes(path) is excluded


@pytest.mark.parametrize(
    ("patterns", "directory", "pruned"),
    [
        (["node_modules"], "node_modules", True),
        (["node_modules", "!*.md"], "node_modules", True),
        (["node_modules", "!node_modules/keep"], "node_modules", False),
        (["*", "!src/**"], "docs", True),
        (["*", "!src/**"], "src", False),
        (["*", "!**/*.md"], "docs", False),
        (["*", "!a/*/c"], "a", False),
        (["*", "!a/*/c"], "b", True),
        (["other"], "node_modules", False),
    ],
)
def test_directories_that_need_no_walk(patterns: list[str], directory: str, pruned: bool) -> None:
    matcher = PatternMatcher(patterns)
    assert matcher.prunes(directory, matcher.match(directory)) is pruned


@pytest.mark.parametrize("pattern", ["[", "[^]", "a[b-", "[b-a]", "[-a]", "\\", "!", "a\\"])
def test_malformed_patterns_are_named(pattern: str) -> None:
    with pytest.raises(PatternError) as caught:
        PatternMatcher(["x", pattern])
    assert repr(pattern) in caught.value.message


def test_bytes_that_are_not_utf8_match_themselves() -> None:
    (pattern,) = read_ignore_file(b"\xff*\n")
    assert PatternMatcher([pattern]).excludes(b"\xffa".decode("utf-8", "surrogateescape"))


def test_no_patterns_exclude_nothing() -> None:
    matcher = PatternMatcher(read_ignore_file(b"# only a comment\n\n"))
    assert not matcher
    assert not matcher.excludes("a")
