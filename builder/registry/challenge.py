"""WWW-Authenticate headers (RFC 9110, section 11.6.1)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

_TOKEN = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"  # noqa: S105  # RFC 9110's word for a run of such characters
_PART = re.compile(rf'\s*,*\s*({_TOKEN})(?:\s*=\s*(?:"((?:[^"\\]|\\.)*)"|({_TOKEN}))|(?=[\s,]|$))')


@dataclass(frozen=True, slots=True)
class Challenge:
    """How a server wants to be told who asks. `scheme` and the names of `parameters` are lower case."""

    scheme: str
    parameters: Mapping[str, str]


def parse(header: str) -> tuple[Challenge, ...]:
    """All challenges of a header, in order; what is malformed ends the list."""
    found: list[tuple[str, dict[str, str]]] = []
    position = 0
    while match := _PART.match(header, position):
        position = match.end()
        name, quoted, plain = match.groups()
        if quoted is None and plain is None:
            found.append((name.lower(), {}))
        elif found:
            value = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else plain
            found[-1][1].setdefault(name.lower(), value)
    return tuple(Challenge(scheme, MappingProxyType(parameters)) for scheme, parameters in found)
