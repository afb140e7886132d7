"""White space as the Dockerfile language means it.

Python's `str.isspace` also counts U+001C..U+001F, which are ordinary characters here, so text is never stripped
without naming the set.
"""

from __future__ import annotations

import re

WHITE_SPACE = "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"  # noqa: E501
"""Unicode's White_Space property: what is trimmed, and what ends a quoted word or a flag."""

_SET = frozenset(WHITE_SPACE)

SEPARATOR = re.compile(r"[\t\v\f\r ]+")
"""What separates an instruction's name from its arguments, and list arguments from each other: ASCII only."""


def is_space(char: str) -> bool:
    """True for one character of `WHITE_SPACE`."""
    return char in _SET


def strip(text: str) -> str:
    return text.strip(WHITE_SPACE)


def lstrip(text: str) -> str:
    return text.lstrip(WHITE_SPACE)


def split_fields(text: str) -> list[str]:
    """The words of `text`, separated by runs of white space; no empty words."""
    return [word for word in re.split(f"[{WHITE_SPACE}]+", text) if word]
