"""Go durations, as in `HEALTHCHECK --interval=1m30s`."""

from __future__ import annotations

import re
from decimal import Decimal

_UNITS = {
    "ns": 1,
    "us": 1_000,
    "\u00b5s": 1_000,  # micro sign
    "\u03bcs": 1_000,  # Greek letter mu
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_PART = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|\u00b5s|\u03bcs|ms|s|m|h)", re.ASCII)
_LONGEST = 2**63 - 1


def parse_duration(text: str) -> int:
    """`text` in nanoseconds, fractions of one cut off.

    Raises ValueError if it is not an optional sign and one or more numbers with a unit, or overflows 64 bits.
    """
    sign, rest = (-1, text[1:]) if text.startswith("-") else (1, text.removeprefix("+"))
    if rest == "0":
        return 0
    total = at = 0
    while match := _PART.match(rest, at):
        total += int(Decimal(match[1]) * _UNITS[match[2]])
        at = match.end()
    if at == 0 or at != len(rest) or total > _LONGEST:
        raise ValueError(f"invalid duration {text!r}")
    return sign * total
