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
        if not path.is_dir():
            what = "is not a directory" if path.exists() else "does not exist"
            hint = "mount the workspace there or name it by --context"
            if path.is_file():
                hint = f"for an archive, use --context tar://{path}"
            raise ContextError(f"context {path} {what}", hint)
        if not os.access(path, os.R_OK | os.X_OK):
            raise ContextError(f"context {path}: permission denied for uid {os.geteuid()}", "let that user read it")
        return Fetched(path=path, source=str(path))
