"""How the text of a flag's value becomes a value: Go's and pflag's grammars, which kaniko's users write.

Every function raises ValueError with one line that says what was expected; `builder.cli.arguments` adds the flag.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping

_TRUE = frozenset(("1", "t", "T", "TRUE", "true", "True"))
_FALSE = frozenset(("0", "f", "F", "FALSE", "false", "False"))
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
_BYTES = {"": 1, "b": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "t": 1000**4}
_BYTES |= {"ki": 1024, "mi": 1024**2, "gi": 1024**3, "ti": 1024**4}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?i?)b?", re.IGNORECASE)


def boolean(text: str) -> bool:
    """Go's strconv.ParseBool."""
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise ValueError("expected true or false (also 1, t, T, TRUE, True, 0, f, F, FALSE, False)")


def is_true(text: str) -> bool:
    """Whether `text` is one of ParseBool's words for true."""
    return text in _TRUE


def integer(text: str) -> int:
    """Go's strconv.ParseInt with base 0: decimal, 0x, 0o, 0b, a leading 0 for octal; `_` between digits."""
    octal = re.fullmatch(r"([+-]?)0([0-7_]+)", text)
    try:
        value = int(octal[1] + "0o" + octal[2], 8) if octal else int(text, 0)
    except ValueError:
        raise ValueError("expected a whole number") from None
    if not -(2**63) <= value < 2**63 or text != text.strip():
        raise ValueError("expected a whole number of 64 bits")
    return value


def duration(text: str) -> float:
    """Go's time.ParseDuration, in seconds: `336h`, `90m`, `1h30m`, `-1.5s`, `0`. There is no unit for days."""
    sign = -1.0 if text.startswith("-") else 1.0
    rest = text[1:] if text[:1] in ("-", "+") else text
    if rest == "0":
        return 0.0
    position, total = 0, 0.0
    while part := _DURATION_PART.match(rest, position):
        total += float(part[1]) * _SECONDS[part[2]]
        position = part.end()
    if position == 0 or position != len(rest):
        raise ValueError("expected a duration such as 336h, 90m or 1h30m (units h, m, s, ms; there is none for days)")
    return sign * total


def size(text: str) -> int:
    """Bytes: a number with an optional unit: k, M, G, T (powers of 1000), Ki, Mi, Gi, Ti (of 1024), `B` may follow."""
    match = _SIZE.fullmatch(text.strip())
    if match is None or match[2].lower() == "i":
        raise ValueError("expected a size such as 500M, 10Gi or 10GiB")
    return int(float(match[1]) * _BYTES[match[2].lower()])


def comma_list(text: str) -> tuple[str, ...]:
    """pflag's StringSlice: one line of CSV, so a value with a comma is written in double quotes."""
    if not text:
        return ()
    try:
        rows = list(csv.reader([text], strict=True))
    except csv.Error as error:
        raise ValueError(f"expected values separated by commas: {error}") from None
    return tuple(rows[0])


def key_value(text: str) -> tuple[str, str]:
    """`key=value`, split at the first `=`."""
    key, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"expected key=value, got {text}")
    return key, value


def registry_map(text: str) -> dict[str, tuple[str, ...]]:
    """`from=to[/prefix][;from=to...]`; a repeated `from` collects its targets in the order they are tried."""
    found: dict[str, tuple[str, ...]] = {}
    for part in filter(None, text.split(";")):
        source, target = key_value(part)
        found[source] = (*found.get(source, ()), target)
    return found


def many(text: str) -> tuple[str, ...]:
    """The one-argument form of a list: a JSON array of strings, a JSON object (`key=value` each), or lines."""
    stripped = text.strip()
    if stripped[:1] not in ("[", "{"):
        return tuple(line for line in text.splitlines() if line.strip())
    try:
        value = json.loads(stripped)
    except ValueError as error:
        raise ValueError(f"expected a JSON array of strings: {error}") from None
    if isinstance(value, Mapping):
        value = [f"{key}={item}" if isinstance(item, str) else item for key, item in value.items()]
    if not all(isinstance(item, str) for item in value):
        raise ValueError("expected a JSON array of strings")
    return tuple(value)
