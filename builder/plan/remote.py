"""Sources of ADD that are not paths: URLs and git repositories."""

from __future__ import annotations

from builder.dockerfile.git_reference import GitReference, parse_git_reference
from builder.errors import DockerfileError, Location


def git_repository(source: str, location: Location) -> GitReference | None:
    """`source` as a git repository, None for anything else and for what can be a local path (`github.com/...`).

    Raises DockerfileError for a query that is unknown or contradicts itself.
    """
    try:
        reference = parse_git_reference(source)
    except DockerfileError as error:
        raise DockerfileError(error.message, error.hint, location=location) from None
    return None if reference is None or reference.like_local_path else reference


def is_remote(source: str, location: Location) -> bool:
    """Whether ADD fetches `source`. Raises what `git_repository` raises."""
    return source.startswith(("http://", "https://")) or git_repository(source, location) is not None
