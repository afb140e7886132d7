"""History texts that follow from Go's formats rather than from an instruction."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.dockerfile.literals import parse_duration
from builder.plan import history

SECOND = 1_000_000_000


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0s"),
        (1, "1ns"),
        (1_500, "1.5µs"),
        (1_500_000, "1.5ms"),
        (SECOND, "1s"),
        (3 * SECOND // 2, "1.5s"),
        (60 * SECOND, "1m0s"),
        (90 * SECOND, "1m30s"),
        (3600 * SECOND, "1h0m0s"),
        (3723 * SECOND + 500_000_000, "1h2m3.5s"),
    ],
)
def test_durations_are_written_as_go_does(nanoseconds: int, text: str) -> None:
    assert history.duration(nanoseconds) == text


@given(st.integers(min_value=0, max_value=2**63 - 1))
def test_a_written_duration_reads_as_itself(nanoseconds: int) -> None:
    assert parse_duration(history.duration(nanoseconds)) == nanoseconds


def test_command_lists_are_quoted_without_commas() -> None:
    assert history.command("CMD", ("a b", 'say "x"', "\x00\u00e9\u2028")) == 'CMD ["a b" "say \\"x\\"" "\\x00é\\u2028"]'


def test_an_entry_tells_whether_its_step_makes_a_layer() -> None:
    layer = history.entry("RUN x", 0, layer=True, suffix=True)
    assert (layer.created_by, layer.created, layer.empty_layer) == ("RUN x # buildkit", "1970-01-01T00:00:00Z", False)
    assert history.entry("ENV a=b", None).created == ""
    assert history.entry("ENV a=b", None).empty_layer
