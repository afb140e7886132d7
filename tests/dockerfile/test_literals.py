"""Durations, sizes, truths and numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.dockerfile.csv_fields import split_csv
from builder.dockerfile.literals import parse_duration, parse_size, parse_truth, parse_unsigned
from builder.dockerfile.quoting import quote
from builder.dockerfile.suggestion import closest


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [("0", 0), ("1h2m3.5s", 3_723_500_000_000), ("-1.5us", -1500), ("+3\u00b5s", 3000), (".5ns", 0), ("1.s", 10**9)],
)
def test_durations(text: str, nanoseconds: int) -> None:
    assert parse_duration(text) == nanoseconds


@pytest.mark.parametrize("text", ["", "1", "s", "1 s", "1s ", "1d", ".s", "--1s", "9999999h"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size"), [("0", 0), ("64m", 64 << 20), ("1GiB", 1 << 30), ("1.5 kb", 1536), ("7B", 7), ("2T", 2 << 40)]
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "m", "-1", "1x", "1kk", "1  k", "1ib", "1e3", "9999999p"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="size"):
        parse_size(text)


def test_truths() -> None:
    assert [parse_truth(text) for text in ("1", "t", "TRUE", "0", "F", "False")] == [True] * 3 + [False] * 3
    for text in ("", "yes", "tRUE", "2"):
        with pytest.raises(ValueError, match="neither"):
            parse_truth(text)


def test_unsigned_numbers() -> None:
    assert (parse_unsigned("0755", 8), parse_unsigned("4294967295", 10)) == (0o755, 2**32 - 1)
    for text, base in (("8", 8), ("", 10), ("-1", 10), ("1_0", 10), ("0x1", 10), ("4294967296", 10), (" 1", 10)):
        with pytest.raises(ValueError, match="number"):
            parse_unsigned(text, base)


@given(st.lists(st.text(), min_size=1).filter(lambda fields: fields != [""]))
def test_quoted_fields_come_back(fields: list[str]) -> None:
    written = ",".join('"' + field.replace('"', '""') + '"' for field in fields)
    assert split_csv(written) == fields


def test_quoting_is_what_go_prints() -> None:
    assert quote('a"b\\c\n\x00\x7f\u00e9\u200b\U0001f600\ue000\udcff ') == r'"a\"b\\c\n\x00\x7fé\u200b😀\ue000\xff "'


def test_the_closest_word() -> None:
    known = ["from", "chown", "chmod"]
    assert closest("form", known) == "from"
    assert closest("CHOWM", known) == "chown"
    assert closest("from", known) is None
    assert closest("parents", known) is None
