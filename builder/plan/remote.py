"""Sources of ADD that are not paths: URLs and git repositories."""

from __future__ import annotations

import re

from builder.errors import Location

_GIT = re.compile(r"https?://[^?#]*\.git(?:[?#].*)?|(?:git|ssh)://.*|[\w.-]+@[\w.-]+:.*")


def is_url(source: str) -> bool:
    """An `http://` or `https://` address."""
    return source.startswith(("http://", "https://"))


def is_git(source: str, location: Location) -> bool:
    """A git repository that cannot be taken for a local path. Raises DockerfileError for a bad query."""
    return _GIT.fullmatch(source) is not None


def is_remote(source: str, location: Location) -> bool:
    """Whether ADD fetches `source`. Raises DockerfileError for a git repository with a bad query."""
    return is_url(source) or is_git(source, location)
