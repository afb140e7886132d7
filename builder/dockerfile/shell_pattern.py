r"""The patterns of `${x#p}`, `${x%p}` and `${x/p/r}`: `*`, `?` and `\` before `*`, `?`, `\`, `/` or `}`.

No bracket expressions: `[` stands for itself. Like BuildKit's, neither wildcard matches a newline.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_WILDCARDS = frozenset("*?")


class InvalidPattern(ValueError):
    """A backslash before a character that needs none."""


def _tokens(pattern: str) -> list[tuple[str, bool]]:
    """The characters of `pattern` with whether each is a wildcard."""
    result: list[tuple[str, bool]] = []
    chars = iter(pattern)
    for char in chars:
        if char != "\\":
            result.append((char, char in _WILDCARDS))
            continue
        escaped = next(chars, "")
        if escaped not in ("*", "?", "\\", "/", "}"):
            raise InvalidPattern(f"invalid escape '\\{escaped}'")
        result.append((escaped, False))
    return result


def _regexp(tokens: Iterable[tuple[str, bool]], *, greedy: bool) -> re.Pattern[str]:
    star = ".*" if greedy else ".*?"
    return re.compile("".join((star if char == "*" else ".") if wild else re.escape(char) for char, wild in tokens))


def remove_prefix(value: str, pattern: str, *, longest: bool) -> str:
    """`value` without the shortest (or longest) beginning that matches."""
    match = _regexp(_tokens(pattern), greedy=longest).match(value)
    return value[match.end() :] if match else value


def remove_suffix(value: str, pattern: str, *, longest: bool) -> str:
    """`value` without the shortest (or longest) end that matches."""
    # Backwards, so that "shortest" is what a lazy quantifier finds first.
    backwards = value[::-1]
    match = _regexp(reversed(_tokens(pattern)), greedy=longest).match(backwards)
    return backwards[match.end() :][::-1] if match else value


def replace(value: str, pattern: str, replacement: str, *, everywhere: bool) -> str:
    """`value` with the first (or every) longest match replaced; `replacement` is plain text."""
    regexp = _regexp(_tokens(pattern), greedy=True)
    result: list[str] = []
    copied = at = 0
    while at <= len(value) and (match := regexp.search(value, at)):
        result.append(value[copied : match.start()])
        # An empty match right behind another one is the same place: `*` replaces "abc" once, not twice.
        if match.end() > copied or match.start() == 0:
            result.append(replacement)
        copied = match.end()
        at = max(match.end(), at + 1)
        if not everywhere:
            break
    return "".join(result) + value[copied:]
