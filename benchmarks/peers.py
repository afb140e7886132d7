"""The builders that are compared: each knows how to build one context, cold, and to push it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol


class Peer(Protocol):
    """A builder. `prepare` makes it cold; what it does is not measured."""

    name: str

    def prepare(self, state: Path) -> None: ...

    def commands(self, context: Path, destination: str, state: Path) -> Sequence[Sequence[str]]: ...


class Limpet:
    """This project, in its fastest isolation."""

    name = "limpet"

    def __init__(self, *flags: str, name: str = "limpet") -> None:
        self.flags = flags
        self.name = name

    def prepare(self, state: Path) -> None:
        _empty(state)

    def commands(self, context: Path, destination: str, state: Path) -> Sequence[Sequence[str]]:
        return [
            [
                sys.executable, "-m", "builder", f"--context={context}", f"--destination={destination}",
                f"--work-dir={state}", *self.flags,
            ]
        ]  # fmt: skip


class Buildah:
    """Debian's buildah with chroot isolation and overlay storage: what runs without a daemon."""

    name = "buildah"

    def prepare(self, state: Path) -> None:
        _empty(state)

    def commands(self, context: Path, destination: str, state: Path) -> Sequence[Sequence[str]]:
        program = [
            "buildah", "--root", str(state / "root"), "--runroot", str(state / "run"), "--storage-driver", "overlay",
        ]  # fmt: skip
        return [
            [
                *program,
                "bud",
                "--isolation",
                "chroot",
                "--tls-verify=false",
                "--layers=false",
                "-q",
                "-t",
                destination,
                str(context),
            ],
            [*program, "push", "--tls-verify=false", "-q", destination],
        ]


def _empty(state: Path) -> None:
    for path in (state / "root" / "overlay", state / "root"):
        if path.is_mount():
            subprocess.run(["umount", str(path)], check=True)
    shutil.rmtree(state, ignore_errors=True)
    state.mkdir(parents=True)
