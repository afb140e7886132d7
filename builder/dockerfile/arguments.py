"""The argument grammars: what follows an instruction's name and flags, cut into arguments.

Nothing is unquoted or expanded here, with one exception: JSON arrays are decoded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping

from builder.dockerfile.quoting import quote
from builder.dockerfile.whitespace import SEPARATOR, WHITE_SPACE, is_space, lstrip
from builder.errors import DockerfileError

Arguments = tuple[tuple[str, ...], bool]
"""The arguments, and whether they were written as a JSON array."""

_SURROGATE = re.compile("[\ud800-\udfff]")


def json_array(text: str) -> tuple[str, ...] | None:
    """`text` as an array of strings, None when it is not strictly valid JSON or not an array.

    Raises DockerfileError when it is an array that holds anything but strings. Unpaired surrogates and bytes that
    are not UTF-8 become U+FFFD.
    """
    text = lstrip(text)
    if not text.startswith("["):
        return None
    try:
        values = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return None
    if not all(isinstance(value, str) for value in values):
        raise DockerfileError(
            "when using JSON array syntax, arrays must be comprised of strings only",
            'put every element into double quotes: ["a", "1"]',
        )
    return tuple(_SURROGATE.sub("\ufffd", value) for value in values)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def quoted_words(text: str, escape: str) -> list[str]:
    """Words separated by white space outside quotes; quotes and escape characters stay."""
    words: list[str] = []
    word: list[str] = []
    quote_char = ""
    at = 0
    while at < len(text):
        char = text[at]
        if not quote_char and is_space(char):
            if word:
                words.append("".join(word))
                word.clear()
        elif char == escape and quote_char != "'":
            at += 1
            if at < len(text):  # an escape character at the very end is dropped
                word.append(char + text[at])
        else:
            if char == quote_char:
                quote_char = ""
            elif not quote_char and char in "'\"":
                quote_char = char
            word.append(char)
        at += 1
    if word:
        words.append("".join(word))
    return words


def _whole(text: str, escape: str, name: str) -> Arguments:
    return ((text,) if text else ()), False


def _separated(text: str, escape: str, name: str) -> Arguments:
    return (tuple(SEPARATOR.split(text)) if text else ()), False


def _json_or_whole(text: str, escape: str, name: str) -> Arguments:
    array = json_array(text)
    return (array, True) if array is not None else _whole(text, escape, name)


def _json_or_separated(text: str, escape: str, name: str) -> Arguments:
    array = json_array(text)
    return (array, True) if array is not None else _separated(text, escape, name)


def _names_and_values(text: str, escape: str, name: str) -> Arguments:
    return tuple(quoted_words(text, escape)), False


def _pairs(text: str, escape: str, name: str) -> Arguments:
    """ENV and LABEL: three arguments for each pair, key, value and the delimiter ("=", "" in the legacy form)."""
    words = quoted_words(text, escape)
    if not words:
        return (), False
    if "=" not in words[0]:
        parts = SEPARATOR.split(text, maxsplit=1)
        if len(parts) < 2:
            raise DockerfileError(f"{name} must have two arguments", f"write {name} {parts[0]}=VALUE")
        return (parts[0], parts[1], ""), False
    arguments: list[str] = []
    for word in words:
        key, delimiter, value = word.partition("=")
        if not delimiter:
            raise DockerfileError(
                f"can't find = in {quote(word)}: it must be of the form name=value",
                "put a value that has blanks into double quotes",
            )
        arguments += (key, value, delimiter)
    return tuple(arguments), False


def _healthcheck(text: str, escape: str, name: str) -> Arguments:
    """The type, then a JSON array or the rest as one text."""
    kind = re.match(f"[^{WHITE_SPACE}]*", text)
    assert kind is not None
    if not kind[0]:
        return (), False
    rest, is_json = _json_or_whole(lstrip(text[kind.end() :]), escape, name)
    return (kind[0], *rest), is_json


GRAMMARS: Mapping[str, Callable[[str, str, str], Arguments]] = {
    "ADD": _json_or_separated,
    "ARG": _names_and_values,
    "CMD": _json_or_whole,
    "COPY": _json_or_separated,
    "ENTRYPOINT": _json_or_whole,
    "ENV": _pairs,
    "EXPOSE": _separated,
    "FROM": _separated,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _pairs,
    "MAINTAINER": _whole,
    "RUN": _json_or_whole,
    "SHELL": _json_or_whole,
    "STOPSIGNAL": _whole,
    "USER": _whole,
    "VOLUME": _json_or_separated,
    "WORKDIR": _whole,
}
"""By instruction: (text, escape character, name) -> arguments. ONBUILD is missing: its argument is an instruction."""
