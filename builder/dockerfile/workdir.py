"""WORKDIR's arithmetic."""

from __future__ import annotations

from builder.dockerfile.paths import clean


def join_workdir(current: str, path: str) -> str:
    """The working directory after `WORKDIR path` (expanded) where `current` was in force ("" for none).

    An absolute path is kept as it is written; a relative one is joined and cleaned; an empty one changes nothing.
    """
    if path.startswith("/"):
        return path
    if not path and current.startswith("/"):
        return current
    return clean(f"/{current}/{path}")
