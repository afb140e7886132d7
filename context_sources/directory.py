"""`PATH` and `dir://PATH`: a directory of this machine, used where it lies."""

from __future__ import annotations

import os
from pathlib import Path

from builder.errors import ContextError
from context_sources.source import Fetched, FetchSettings


class DirectorySource:
    """Relative paths are relative to the process's working directory, also after `dir://`."""

    def fetch(self, location: str, into: Path, settings: FetchSettings) -> Fetched:
        path = Path(os.path.abspath(location.removeprefix("dir://") or "."))
        if not os.path.isdir(path):
            _check_parents(path)
            what = "is not a directory" if path.exists() else "does not exist"
            hint = "mount the workspace there or name it by --context"
            if path.is_file():
                hint = f"for an archive, use --context tar://{path}"
            raise ContextError(f"context {path} {what}", hint)
        if not os.access(path, os.R_OK | os.X_OK):
            raise _denied(path)
        return Fetched(path=path, source=str(path))


def _check_parents(path: Path) -> None:
    """Tell a directory above `path` that this uid may not search from a path that is not there."""
    try:
        path.stat()
    except PermissionError:
        raise _denied(path) from None
    except OSError:
        pass


def _denied(path: Path) -> ContextError:
    return ContextError(
        f"context {path}: permission denied",
        "let the user that Limpet runs as read it and search the directories above; in Kubernetes, fsGroup does",
    )
