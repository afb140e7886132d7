"""Removing directories that hold whatever an image or a step put there."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def remove_tree(path: Path | str) -> None:
    """Remove `path` and all below it; what is not there is fine. Directories without permissions get some first.

    Works on files of other ids where this process is root over them. Raises OSError when something has to stay.
    """

    def unlock(function: object, failed: str, info: object) -> None:
        if not os.path.lexists(failed):
            return
        # rmtree reports the directory that it could not list or the entry that its parent would not let go.
        for directory in (os.path.dirname(failed), failed):
            if os.path.isdir(directory) and not os.path.islink(directory):
                os.chmod(directory, 0o700)
        if os.path.isdir(failed) and not os.path.islink(failed):
            shutil.rmtree(failed)
        else:
            os.unlink(failed)

    shutil.rmtree(path, onerror=unlock)
