"""`# check=skip=RULE,...;experimental=RULE,...;error=true`: what a file says about its lint findings."""

from __future__ import annotations

import re

from builder.dockerfile.directives import Directive
from builder.dockerfile.instructions import Check
from builder.dockerfile.literals import parse_truth
from builder.dockerfile.suggestion import did_you_mean
from builder.dockerfile.whitespace import strip
from builder.errors import DockerfileError, Location

_OPTIONS = ("skip", "experimental", "error")
_COMMENT = re.compile(r"check\s*=\s*(\S+).*", re.IGNORECASE | re.ASCII)


def file_check(directive: Directive | None, path: str) -> Check:
    """The options at the top of the file. Raises DockerfileError for an option that does not exist."""
    if directive is None:
        return Check()
    try:
        return parse_check(directive.value)
    except ValueError as problem:
        raise DockerfileError(
            f"# check={directive.text}: {problem}",
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


def is_check_comment(comment: str) -> bool:
    """True for the text of a comment that is meant for the linter, not for readers."""
    return _COMMENT.fullmatch(comment) is not None


def parse_check(text: str) -> Check:
    """`skip=a,b;error=true` as a value. Raises ValueError for an unknown option."""
    values: dict[str, str] = {}
    for option in text.split(";"):
        if not option:
            continue
        name, delimiter, value = option.partition("=")
        if not delimiter or name not in _OPTIONS:
            suggestion = did_you_mean(name, _OPTIONS)
            raise ValueError(f"invalid option {option!r}" + (f" ({suggestion})" if suggestion else ""))
        values[name] = value
    skip, experimental = _rules(values.get("skip", "")), _rules(values.get("experimental", ""))
    return Check(
        skip=skip - {"all"},
        skip_all="all" in skip,
        experimental=experimental - {"all"},
        experimental_all="all" in experimental,
        error=parse_truth(values.get("error", "false")),
    )


def _rules(text: str) -> frozenset[str]:
    return frozenset(strip(rule) for rule in text.split(",") if strip(rule))
