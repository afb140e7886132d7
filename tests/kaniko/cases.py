"""The corpus: what each case gives to the executor, and what must come of it. corpus/README.md explains the files."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

CORPUS = Path(__file__).parent / "corpus"


@dataclass(frozen=True)
class Case:
    """One Dockerfile with its context, arguments and environment. `expect` is read by tests.kaniko.judge."""

    name: str
    about: str
    dockerfile: str
    context: Mapping[str, Any] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    expect: Mapping[str, Any] = field(default_factory=dict)
    kaniko: str = ""  # why kaniko does something else: a row of the table in docs/migrating-from-kaniko.md


def read_cases() -> list[Case]:
    """Every case of every file; the name begins with the file's."""
    cases = []
    for path in sorted(CORPUS.glob("*.yaml")):
        for name, value in yaml.safe_load(path.read_text()).items():
            value["arguments"] = tuple(value.get("arguments", ()))
            cases.append(Case(name=f"{path.stem}/{name}", **value))
    return cases


def write_context(case: Case, directory: Path) -> None:
    """Make the context of `case`, Dockerfile included, in `directory`: all modes are set, the umask does not matter."""
    directory.mkdir()
    files = {"Dockerfile": case.dockerfile, **case.context} if case.dockerfile else dict(case.context)
    for name, value in files.items():
        path = directory / name
        for parent in reversed(path.relative_to(directory).parents[:-1]):
            if not (directory / parent).exists():
                (directory / parent).mkdir()
                os.chmod(directory / parent, 0o755)
        _write(path, value if isinstance(value, Mapping) else {"content": value}, directory)


def _write(path: Path, what: Mapping[str, Any], directory: Path) -> None:
    kind = what.get("kind", "link" if "link" in what else "hardlink" if "hardlink" in what else "file")
    if kind == "link":
        os.symlink(what["link"], path)
    elif kind == "hardlink":
        os.link(directory / what["hardlink"], path)
    elif kind == "dir":
        path.mkdir(exist_ok=True)
    elif kind == "socket":
        shutil.copy(os.devnull, path)
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        data = what.get("content", "")
        path.write_bytes(data if isinstance(data, bytes) else str(data).encode())
    if kind not in ("link", "hardlink"):
        os.chmod(path, int(str(what.get("mode", "0755" if kind == "dir" else "0644")), 8))
    if "owner" in what:
        uid, _, gid = str(what["owner"]).partition(":")
        os.chown(path, int(uid), int(gid or uid), follow_symlinks=False)
    if "mtime" in what:
        os.utime(path, (what["mtime"], what["mtime"]), follow_symlinks=False)


def substituted(text: str, places: Mapping[str, str]) -> str:
    """`text` with `@NAME@` replaced."""
    for name, value in places.items():
        text = text.replace(f"@{name}@", value)
    return text
