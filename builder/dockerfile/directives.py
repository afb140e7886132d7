"""Parser directives: `# name=value` at the top of a file.

There are two readings of them. The parser's stops at the first line that is not a known directive. Who only wants to
know which frontend or which checks a file asks for skips a `#!` line first, and takes `//name=value` and JSON as well.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from builder.dockerfile.whitespace import lstrip, split_fields
from builder.errors import DockerfileError, Location

_DIRECTIVE = r"\s*([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(\S(?:.*\S)?|\s)\s*"
_NUMBER_SIGN = re.compile("#" + _DIRECTIVE, re.ASCII)
_SLASHES = re.compile("//" + _DIRECTIVE, re.ASCII)
_KNOWN = frozenset({"syntax", "escape", "check"})
_ESCAPES = ("\\", "`")


@dataclass(frozen=True, slots=True)
class Directive:
    """`# name=text` on `line` (0: not on a line of its own); `name` is lower-case."""

    name: str
    text: str
    line: int

    @property
    def value(self) -> str:
        """The first word of `text`."""
        return (split_fields(self.text) or [""])[0]


def read_directives(lines: Iterable[str], path: str) -> tuple[Directive, ...]:
    """The directives that the parser obeys, from lines without their ends.

    Raises DockerfileError for a repeated one and for an escape character that is neither of the two.
    """
    found: dict[str, Directive] = {}
    for directive in _leading(map(lstrip, lines), _NUMBER_SIGN, first=1):
        location = Location(path, directive.line, directive.line)
        if directive.name in found:
            raise DockerfileError(
                f"only one {directive.name} parser directive can be used",
                f"the first one is on line {found[directive.name].line}",
                location=location,
            )
        if directive.name == "escape" and directive.text not in _ESCAPES:
            raise DockerfileError(
                f"invalid escape token '{directive.text}' does not match ` or \\",
                "write # escape=\\ or # escape=`",
                location=location,
            )
        found[directive.name] = directive
    return tuple(found.values())


def detect_directive(name: str, data: bytes) -> Directive | None:
    """The first directive called `name` by the looser reading; nothing that is wrong with the file is an error."""
    text = data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    first = 1
    if lines[0].startswith("#!"):
        del lines[0]
        first = 2
    for pattern in (_NUMBER_SIGN, _SLASHES):
        for directive in _leading(lines, pattern, first=first):
            if directive.name == name:
                return directive
    return _json_directive(name, text)


def _leading(lines: Iterable[str], pattern: re.Pattern[str], *, first: int) -> Iterator[Directive]:
    """The known directives before the first line of any other kind; `first` is the number of the first line."""
    for number, line in enumerate(lines, first):
        match = pattern.fullmatch(line)
        if not match or match[1].lower() not in _KNOWN:
            return
        yield Directive(match[1].lower(), match[2], number)


def _json_directive(name: str, text: str) -> Directive | None:
    if not lstrip(text).startswith("{"):
        return None
    try:
        value = json.loads(text).get(name)
    except (ValueError, RecursionError):
        return None
    return Directive(name, value, 0) if isinstance(value, str) and value else None
