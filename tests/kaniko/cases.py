"""The corpus: what each case gives to the executor, and what must come of it. corpus/README.md explains the files."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
import zstandard

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
    elif "archive" in what:
        path.write_bytes(_archive(what["archive"], what.get("compression", "")))
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


def _archive(members: Mapping[str, Any], compression: str) -> bytes:
    """A tar of `members`: path -> text, or a mapping of `content`, `mode`, `owner`, `link` and `kind` (dir)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, value in members.items():
            what = value if isinstance(value, Mapping) else {"content": value}
            info = tarfile.TarInfo(name)
            data = str(what.get("content", "")).encode()
            info.mode, info.mtime = int(str(what.get("mode", "0644")), 8), 1_500_000_000
            info.uid, info.gid = map(int, str(what.get("owner", "0:0")).split(":"))
            if "link" in what:
                info.type, info.linkname = tarfile.SYMTYPE, what["link"]
            elif what.get("kind") == "dir":
                info.type = tarfile.DIRTYPE
            else:
                info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    pack = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zst": zstandard.compress}
    return pack[compression](buffer.getvalue()) if compression else buffer.getvalue()


def substituted(text: str, places: Mapping[str, str]) -> str:
    """`text` with `@NAME@` replaced."""
    for name, value in places.items():
        text = text.replace(f"@{name}@", value)
    return text
