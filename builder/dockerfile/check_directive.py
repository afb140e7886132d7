"""`# check=skip=RULE,...;experimental=RULE,...;error=true`: what a file says about its lint findings."""

from __future__ import annotations

import re

from builder.dockerfile.instructions import Check
from builder.dockerfile.lexer import Directive
from builder.dockerfile.suggestion import did_you_mean
from builder.dockerfile.whitespace import split_fields, strip
from builder.errors import DockerfileError, Location

_OPTIONS = ("skip", "experimental", "error")
_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})
_COMMENT = re.compile(r"check\s*=\s*(.+)", re.IGNORECASE | re.ASCII)


def file_check(directive: Directive | None, path: str) -> Check:
    """The options at the top of the file. Raises DockerfileError for an option that does not exist."""
    if directive is None:
        return Check()
    try:
        return parse_check(directive.value)
    except ValueError as problem:
        raise DockerfileError(
            f"# check={directive.value}: {problem}",
            "write # check=skip=RULE,RULE;error=true",
            location=Location(path, directive.line, directive.line),
        ) from None


def instruction_check(comments: tuple[str, ...], base: Check) -> Check:
    """`base` and what comments above an instruction add; a comment that is no such directive is just a comment."""
    for comment in comments:
        match = _COMMENT.fullmatch(comment)
        if not match:
            continue
        try:
            base = base.merged(parse_check(match[1]))
        except ValueError:
            continue
    return base


def parse_check(text: str) -> Check:
    """The options before the first white space of `text`. Raises ValueError for an unknown one."""
    values: dict[str, str] = {}
    for option in (split_fields(text) or [""])[0].split(";"):
        if not option:
            continue
        name, delimiter, value = option.partition("=")
        if not delimiter or name not in _OPTIONS:
            suggestion = did_you_mean(name, _OPTIONS)
            raise ValueError(f"invalid option {option!r}" + (f" ({suggestion})" if suggestion else ""))
        values[name] = value
    error = values.get("error", "false")
    if error not in _TRUE | _FALSE:
        raise ValueError(f"error={error} is neither true nor false")
    skip, experimental = _rules(values.get("skip", "")), _rules(values.get("experimental", ""))
    return Check(
        skip=skip - {"all"},
        skip_all="all" in skip,
        experimental=experimental - {"all"},
        experimental_all="all" in experimental,
        error=error in _TRUE,
    )


def _rules(text: str) -> frozenset[str]:
    return frozenset(strip(rule) for rule in text.split(",") if strip(rule))
