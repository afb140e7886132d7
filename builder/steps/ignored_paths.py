"""`--ignore-path`: which paths of an image a pattern means."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable

from builder.errors import UsageError
from builder.steps.wildcard import translate


def ignored_paths(patterns: Iterable[str]) -> Callable[[str], bool]:
    """Whether a path of the image is one of `patterns` or lies below one.

    A pattern is an absolute path; each component may have wildcards, which stop at `/` (see builder.steps.wildcard).
    Raises UsageError for the root and for a malformed pattern.
    """
    matchers = []
    for pattern in patterns:
        clean = posixpath.normpath("/" + pattern).strip("/")
        expression = translate(clean)
        if not clean or expression is None:
            raise UsageError(
                f"--ignore-path: {pattern!r} is not a path that can be ignored",
                "write an absolute path such as /var/cache; *, ? and [...] match within one name",
            )
        matchers.append((clean.count("/") + 1, expression))

    def ignored(path: str) -> bool:
        parts = path.split("/")
        return any(
            len(parts) >= length and expression.fullmatch("/".join(parts[:length])) for length, expression in matchers
        )

    return ignored
