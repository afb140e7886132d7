"""Go's filepath.Match, and looking for what it matches."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.steps import wildcard
from tests.steps.trees import directory, file, tree

MATCHES = [
    ("*", "abc", True),
    ("*", ".hidden", True),
    ("*", "a/b", False),
    ("a*", "a", True),
    ("a*/b", "a/c/b", False),
    ("a?b", "a/b", False),
    ("a?b", "aüb", True),
    ("[a-c]x", "bx", True),
    ("[^a-c]x", "bx", False),
    ("[^a-c]x", "dx", True),
    ("a[^a]b", "a/b", True),  # a class may match a slash
    ("[c-a]x", "bx", False),
    ("[[]x", "[x", True),
    ("[\\]]x", "]x", True),
    ("\\*", "*", True),
    ("\\*", "a", False),
    ("a.c", "abc", False),
    ("a**b", "axyzb", True),
    ("(a|b)+", "a", False),
    ("x\n*", "x\ny", True),
]


@pytest.mark.parametrize(("pattern", "name", "expected"), MATCHES)
def test_matches(pattern: str, name: str, expected: bool) -> None:
    compiled = wildcard.translate(pattern)
    assert compiled is not None
    assert (compiled.fullmatch(name) is not None) is expected


@pytest.mark.parametrize("pattern", ["[", "[]", "[]a]", "[-]", "[x-]", "[a", "[a-", "[^", "[^]", "a\\", "[\\"])
def test_a_malformed_pattern_matches_nothing(pattern: str) -> None:
    assert wildcard.translate(pattern) is None
    assert list(wildcard.expand(tree(file(pattern), file("a"), file("b")), "", pattern)) == []


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a/b/c", ("a/b/c", "")),
        ("a/b*/c", ("a", "b*/c")),
        ("a/?/c", ("a", "?/c")),
        ("*", ("", "*")),
        ("a\\*/b", ("a\\*/b", "")),
        ("a/[b]/c", ("a", "[b]/c")),
    ],
)
def test_split(path: str, expected: tuple[str, str]) -> None:
    assert wildcard.split(path) == expected


def test_nothing_below_a_match_is_looked_at() -> None:
    shown = tree(directory("a"), file("a/a"), directory("b"), file("b/a"))
    assert list(wildcard.expand(shown, "", "[ab]")) == ["a", "b"]
    assert list(wildcard.expand(shown, "", "?")) == ["a", "b"]
    assert list(wildcard.expand(shown, "", "*/a")) == ["a/a", "b/a"]


NAMES = st.text("ab-", min_size=1, max_size=2)
PATHS = st.lists(st.lists(NAMES, min_size=1, max_size=3).map("/".join), max_size=12)
PARTS = st.lists(st.sampled_from(["a", "b", "*", "?", "[ab]", "[^a]", "-"]), min_size=1, max_size=3).map("".join)


@given(PATHS, st.lists(PARTS, min_size=1, max_size=3).map("/".join))
def test_expand_finds_what_matches_and_is_not_below_a_match(paths: list[str], pattern: str) -> None:
    """Looking component by component, or at every path, finds the same."""
    shown = tree(*(directory(path) for path in paths))
    everything = {"/".join(path.split("/")[: n + 1]) for path in paths for n in range(path.count("/") + 1)}
    compiled = wildcard.translate(pattern)
    assert compiled is not None
    matching = {path for path in everything if compiled.fullmatch(path)}
    outermost = {path for path in matching if not any(path.startswith(f"{other}/") for other in matching)}
    found = list(wildcard.expand(shown, "", pattern))
    assert sorted(found) == sorted(outermost)
