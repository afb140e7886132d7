"""Numbers, truths, durations and sizes as flags and options write them (the formats of Go's standard library).

Every function raises ValueError for text that is not in its format.
"""

from __future__ import annotations

import re

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
_SIZE = re.compile(r"(\d+\.?\d*|\.\d+) ?(?:([kmgtp])(?:i?b)?|b)?", re.ASCII | re.IGNORECASE)
_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})


def parse_duration(text: str) -> int:
    """`1h2m3.5s` in nanoseconds, fractions of one cut off: an optional sign, numbers with units; 64 bits."""
    sign, rest = (-1, text[1:]) if text.startswith("-") else (1, text.removeprefix("+"))
    if rest == "0":
        return 0
    from decimal import Decimal  # few Dockerfiles have a duration or a size

    total = at = 0
    while match := _PART.match(rest, at):
        total += int(Decimal(match[1]) * _UNITS[match[2]])
        at = match.end()
    if at == 0 or at != len(rest) or total > _LONGEST:
        raise ValueError(f"invalid duration {text!r}")
    return sign * total


def parse_size(text: str) -> int:
    """`64m`, `1GiB`, `10 kb` in bytes; every unit is a power of 1024, case does not matter."""
    match = _SIZE.fullmatch(text)
    if not match:
        raise ValueError(f"invalid size {text!r}")
    from decimal import Decimal

    power = "kmgtp".index(match[2].lower()) + 1 if match[2] else 0
    size = int(Decimal(match[1]) * 1024**power)
    if size > _LONGEST:
        raise ValueError(f"invalid size {text!r}")
    return size


def parse_truth(text: str) -> bool:
    """1, t, true, T, True, TRUE or the same for false."""
    if text not in _TRUE | _FALSE:
        raise ValueError(f"neither true nor false: {text!r}")
    return text in _TRUE


def parse_unsigned(text: str, base: int) -> int:
    """A number of 32 bits without sign, blanks or underscores."""
    digits = "01234567" if base == 8 else "0123456789"
    if not text or len(text) > 64 or text.strip(digits) or int(text, base) >= 2**32:
        raise ValueError(f"invalid number {text!r}")
    return int(text, base)
