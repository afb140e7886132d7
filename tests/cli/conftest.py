"""The command line as users have it: a process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

Limpet = Callable[..., "subprocess.CompletedProcess[str]"]


def environment(**extra: str) -> dict[str, str]:
    """Nothing of the caller's but what Python needs."""
    return {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", **extra}


@pytest.fixture
def limpet(tmp_path: Path) -> Limpet:
    """Run `limpet` (`program` names another executable) in an empty directory."""

    def run(*arguments: str, env: Mapping[str, str] | None = None, stdin: str = "", program: Path | None = None):
        command = [sys.executable, "-m", "builder"] if program is None else [str(program)]
        directory = tmp_path / "cwd"
        directory.mkdir(exist_ok=True)
        return subprocess.run(
            [*command, *arguments],
            cwd=directory,
            env=environment(HOME=str(tmp_path), **(env or {})),
            input=stdin,
            text=True,
            capture_output=True,
            check=False,
        )

    return run
