"""`did you mean ...?`: the known word closest to a mistyped one."""

from __future__ import annotations

from collections.abc import Iterable

_FARTHEST = 3  # edits; BuildKit suggests nothing beyond that


def closest(word: str, known: Iterable[str], *, case_sensitive: bool = False) -> str | None:
    """The word of `known` nearest to `word`, None when it is itself known or nothing is near.

    Nearness is the Levenshtein distance; at equal distance the first of `known` wins.
    """
    best, best_distance = None, _FARTHEST
    wanted = word if case_sensitive else word.lower()
    for candidate in known:
        compared = candidate if case_sensitive else candidate.lower()
        if compared == wanted:
            return None
        distance = _distance(wanted, compared)
        if distance < best_distance:
            best, best_distance = candidate, distance
    return best


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint for an error message, "" when nothing is near."""
    suggestion = closest(word, known)
    return f"did you mean {suggestion}?" if suggestion else ""


def _distance(left: str, right: str) -> int:
    if abs(len(left) - len(right)) >= _FARTHEST:
        return _FARTHEST
    row = list(range(len(right) + 1))
    for i, a in enumerate(left, 1):
        diagonal, row[0] = row[0], i
        for j, b in enumerate(right, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (a != b))
    return row[-1]
