"""Keys of finished layers.

A key is a rolling hash over everything that decides a layer: the key of the step before, the instruction with
its variables replaced, the environment that RUN sees, and digests of what is read. Every part is prefixed by its
length, so two different lists of parts never meet in one key. Secrets are never a part.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

_VERSION = b"limpet-cache-1"


@dataclass(frozen=True, slots=True)
class CacheKey:
    """64 hexadecimal digits that stand for a step and all that came before it."""

    value: str

    @classmethod
    def of(cls, *parts: str | bytes) -> CacheKey:
        """The key of `parts` alone: the start of a chain."""
        return cls(_digest(parts))

    def extend(self, *parts: str | bytes) -> CacheKey:
        """The key of this step followed by `parts`."""
        return CacheKey(_digest((self.value, *parts)))

    def __str__(self) -> str:
        return self.value


def _digest(parts: Iterable[str | bytes]) -> str:
    state = hashlib.sha256(_VERSION)
    for part in parts:
        data = part.encode("utf-8", "surrogateescape") if isinstance(part, str) else part
        state.update(len(data).to_bytes(8, "big"))
        state.update(data)
    return state.hexdigest()
