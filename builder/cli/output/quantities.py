"""Bytes, seconds and counts as people read them."""

from __future__ import annotations


def bytes_text(count: float) -> str:
    """`512 B`, `1.5 kB`, `28.3 MB`, `3.2 GB`: powers of 1000, as registries and disks count."""
    if count < 1000:
        return f"{count:.0f} B"
    for unit in ("kB", "MB", "GB"):
        count /= 1000
        if count < 999.95 or unit == "GB":
            return f"{count:.1f} {unit}"
    raise AssertionError


def seconds_text(seconds: float) -> str:
    """`0.3s`, `12.0s`, `3m05s`, `1h02m`."""
    if seconds < 59.95:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}m{rest:02d}s"
    return f"{minutes // 60}h{minutes % 60:02d}m"


def counted(number: int, noun: str, plural: str = "") -> str:
    """`1 layer`, `2 layers`; `plural` where it is not the noun with an s."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"
