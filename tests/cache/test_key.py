"""Keys: a different list of parts is a different key."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from builder.cache import CacheKey

PARTS = st.lists(st.text("ab\0", max_size=3) | st.binary(max_size=2), max_size=4)


def bytes_of(parts: list[str | bytes]) -> list[bytes]:
    return [part.encode() if isinstance(part, str) else part for part in parts]


@settings(deadline=None)
@given(PARTS, PARTS)
def test_two_lists_have_one_key_only_if_they_are_equal(one: list[str | bytes], two: list[str | bytes]) -> None:
    assert (CacheKey.of(*one) == CacheKey.of(*two)) is (bytes_of(one) == bytes_of(two))


@settings(deadline=None)
@given(PARTS, PARTS)
def test_where_a_step_ends_counts(one: list[str | bytes], two: list[str | bytes]) -> None:
    assert CacheKey.of(*one).extend(*two) != CacheKey.of(*one, *two)


def test_a_key_is_a_tag() -> None:
    assert len(str(CacheKey.of("a"))) == 64
    assert set(str(CacheKey.of("a"))) <= set("0123456789abcdef")
