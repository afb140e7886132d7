"""The last line of defence: values that are known to be secret are masked in everything that is printed.

No part of Limpet writes a secret on purpose; a RUN step may (`set -x`, a tool that echoes its settings).
"""

from __future__ import annotations

import re
import threading

MASK = "***"
_SHORTEST = 5  # characters: masking shorter values would garble the log and so tell what they are


class Redactor:
    """Knows secrets and masks them. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: set[str] = set()
        self._pattern: re.Pattern[str] | None = None

    def add(self, secret: str | bytes) -> None:
        """Mask `secret` from now on, and each line of it, as a log has lines. Shorter than 5 characters: ignored."""
        text = secret.decode(errors="replace") if isinstance(secret, bytes) else secret
        values = {line.strip() for line in text.splitlines()}
        values = {value for value in values if len(value) >= _SHORTEST}
        with self._lock:
            if values <= self._values:
                return
            self._values |= values
            longest_first = sorted(self._values, key=len, reverse=True)
            self._pattern = re.compile("|".join(map(re.escape, longest_first)))

    def mask(self, text: str) -> str:
        """`text` with every known secret replaced by `***`."""
        pattern = self._pattern
        return pattern.sub(MASK, text) if pattern else text
