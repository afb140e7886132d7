"""Git repositories for contexts."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path


def make_repository(bare: Path, files: Mapping[str, str]) -> None:
    """A bare repository with one commit of `files` on main."""
    work = bare.with_suffix(".work")
    work.mkdir(parents=True)
    for name, text in files.items():
        (work / name).write_text(text)
    git = ["git", "-c", "user.name=n", "-c", "user.email=e@example.com", "-C", work]
    for argv in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-q", "-m", "all"]):
        subprocess.run([*git, *argv], check=True, capture_output=True)
    subprocess.run(["git", "clone", "-q", "--bare", work, bare], check=True, capture_output=True)
    shutil.rmtree(work)
