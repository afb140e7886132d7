"""Words, beyond what the conformance vectors ask."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.dockerfile.shell_pattern import InvalidPattern, remove_prefix, remove_suffix, replace
from builder.dockerfile.words import Lexer, WordError, environment

TEXT = st.text(alphabet="ab/*?\\$ {}", max_size=8)


def test_a_nested_default_keeps_the_text_before_it() -> None:
    assert Lexer().expand_to_words("80${P:-/udp} ${Q:-1 2}3", {}) == ("80/udp", "1", "23")


def test_variables_without_a_value_can_stay_as_they_are() -> None:
    text = "$A ${A} ${A:-b} ${A#x} ${A//x/y}"
    assert Lexer(skip_unset=True).expand(text, {}) == text


def test_the_escape_character_can_be_another_one() -> None:
    assert Lexer(escape="`").expand(r"C:\x\`$A`", {"A": "1"}) == r"C:\x\$A"


def test_quotes_are_text_in_heredocs() -> None:
    assert Lexer(quotes=False).expand('it\'s "$A" \\$A', {"A": "1"}) == 'it\'s "1" $A'


@pytest.mark.parametrize("text", ["'a", '"a', "${a", "${}", "${a:=b}", "${a?gone}", "${a#\\x}", "${a:-" * 500])
def test_what_is_not_a_word_is_said_to_be_none(text: str) -> None:
    with pytest.raises(WordError) as caught:
        Lexer().expand(text, {})
    assert caught.value.location is None


@given(st.text(max_size=30), st.dictionaries(st.sampled_from("abx"), st.text(max_size=4)))
def test_nothing_but_word_errors(text: str, env: dict[str, str]) -> None:
    for lexer in (Lexer(), Lexer(escape="`", raw_quotes=True, raw_escapes=True), Lexer(skip_unset=True, quotes=False)):
        try:
            expansion = lexer.process(text, env)
        except WordError:
            continue
        assert not (expansion.matched & expansion.unmatched)


@given(st.text(max_size=30))
def test_single_quotes_keep_everything(text: str) -> None:
    if "'" not in text:
        assert Lexer().process(f"'{text}'", {"a": "b"}).text == text


@given(TEXT, TEXT)
def test_what_a_pattern_removes_is_an_end_of_the_value(value: str, pattern: str) -> None:
    try:
        for longest in (False, True):
            assert value.endswith(remove_prefix(value, pattern, longest=longest))
            assert value.startswith(remove_suffix(value, pattern, longest=longest))
    except InvalidPattern:
        assert "\\" in pattern


@given(TEXT, st.text(alphabet="ab/", min_size=1, max_size=3), TEXT)
def test_replacing_plain_text_is_replacing_text(value: str, pattern: str, replacement: str) -> None:
    assert replace(value, pattern, replacement, everywhere=True) == value.replace(pattern, replacement)
    assert replace(value, pattern, replacement, everywhere=False) == value.replace(pattern, replacement, 1)


def test_an_entry_without_equals_sign_is_empty_and_the_last_of_a_name_wins() -> None:
    assert environment(["A=1", "B", "A=2=3"]) == {"A": "2=3", "B": ""}
