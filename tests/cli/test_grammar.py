"""Values of flags: Go's grammars, by tables and by laws."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.cli import grammar


@pytest.mark.parametrize("text", ["1", "t", "T", "TRUE", "true", "True"])
def test_words_for_true(text: str) -> None:
    assert grammar.boolean(text) is True


@pytest.mark.parametrize("text", ["0", "f", "F", "FALSE", "false", "False"])
def test_words_for_false(text: str) -> None:
    assert grammar.boolean(text) is False


@pytest.mark.parametrize("text", ["", "yes", "no", "tRUE", "on", "2", " true"])
def test_other_words_are_no_booleans(text: str) -> None:
    with pytest.raises(ValueError, match="true or false"):
        grammar.boolean(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("336h", 1209600.0),
        ("90m", 5400.0),
        ("1h30m", 5400.0),
        ("0", 0.0),
        ("-1.5s", -1.5),
        ("+2m", 120.0),
        (".5s", 0.5),
        ("1.s", 1.0),
        ("100ms", 0.1),
        ("1h1m1s1ms", 3661.001),
        ("2us", 2e-6),
        ("2µs", 2e-6),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert grammar.duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "1", "14d", "1h 30m", "h", "1x", "--1s", "1.2.3s", "s1"])
def test_no_durations(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        grammar.duration(text)


@pytest.mark.parametrize(
    ("text", "number"), [("3", 3), ("-1", -1), ("0x10", 16), ("010", 8), ("0o10", 8), ("0b11", 3), ("+4", 4)]
)
def test_integers(text: str, number: int) -> None:
    assert grammar.integer(text) == number


@pytest.mark.parametrize("text", ["", "x", "1.5", " 1", "9223372036854775808", "08"])
def test_no_integers(text: str) -> None:
    with pytest.raises(ValueError, match="whole number"):
        grammar.integer(text)


@pytest.mark.parametrize(
    ("text", "count"), [("0", 0), ("500M", 500_000_000), ("10Gi", 10 << 30), ("10GiB", 10 << 30), ("1.5kB", 1500)]
)
def test_sizes(text: str, count: int) -> None:
    assert grammar.size(text) == count


@pytest.mark.parametrize("text", ["", "G", "10X", "-1", "1i"])
def test_no_sizes(text: str) -> None:
    with pytest.raises(ValueError, match="size"):
        grammar.size(text)


def test_comma_lists_follow_the_rules_of_csv() -> None:
    assert grammar.comma_list("a,b") == ("a", "b")
    assert grammar.comma_list('"a,b",c') == ("a,b", "c")
    assert grammar.comma_list("") == ()
    with pytest.raises(ValueError, match="commas"):
        grammar.comma_list('"a"b')


def test_registry_maps_collect_in_order() -> None:
    text = "docker.io=a.example;quay.io=b.example/p;docker.io=c.example;"
    assert grammar.registry_map(text) == {"docker.io": ("a.example", "c.example"), "quay.io": ("b.example/p",)}
    with pytest.raises(ValueError, match=r"expected key=value, got docker\.io"):
        grammar.registry_map("docker.io")


@given(st.text(), st.text())
def test_a_pair_is_split_at_its_first_equals_sign(key: str, value: str) -> None:
    if "=" not in key:
        assert grammar.key_value(f"{key}={value}") == (key, value)


@given(st.lists(st.text()))
def test_a_json_array_is_taken_as_it_is(values: list[str]) -> None:
    assert grammar.many(json.dumps(values)) == tuple(values)


def test_the_other_forms_of_a_list_in_one_argument() -> None:
    assert grammar.many('{"a": "1", "b": "x=y"}') == ("a=1", "b=x=y")
    assert grammar.many("A=1\n\nB=2\n") == ("A=1", "B=2")
    assert grammar.many("") == ()
    for wrong in ("[1]", '["a"', '{"a": 1}'):
        with pytest.raises(ValueError, match="JSON array of strings"):
            grammar.many(wrong)
