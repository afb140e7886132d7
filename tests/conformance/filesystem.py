"""The trees of the fs_copy vectors: from a case's list of entries, and back to one."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Any

from builder.rootfs.entry import BytesContent, Entry, FileType
from builder.rootfs.tree import Tree

MTIME = 1600000000  # of everything in the trees that cases start from


def write_directory(entries: list[dict[str, Any]], root: Path) -> None:
    """Make the entries in directory `root`. Needs root for the owners."""
    for entry in entries:
        path = f"{root}{entry['path']}"
        if "hardlink_to" in entry:
            os.link(f"{root}{entry['hardlink_to']}", path)
            continue
        kind = entry.get("type", "file")
        if kind == "dir":
            os.mkdir(path)
        elif kind == "symlink":
            os.symlink(entry["target"], path)
        else:
            Path(path).write_bytes(_data(entry))
        os.chown(path, entry.get("uid", 0), entry.get("gid", 0), follow_symlinks=False)
        if kind != "symlink":
            os.chmod(path, _mode(entry))
    for entry in reversed(entries):
        os.utime(f"{root}{entry['path']}", (MTIME, MTIME), follow_symlinks=False)


def layer_entries(entries: list[dict[str, Any]]) -> Iterator[Entry]:
    """The entries as a layer has them; there are no hardlinks among those of base images."""
    types = {"dir": FileType.DIRECTORY, "symlink": FileType.SYMLINK, "file": FileType.FILE}
    for entry in entries:
        file_type = types[entry.get("type", "file")]
        is_file = file_type is FileType.FILE
        data = _data(entry) if is_file else b""
        yield Entry(
            path=entry["path"].strip("/"),
            type=file_type,
            mode=0o777 if file_type is FileType.SYMLINK else _mode(entry),
            uid=entry.get("uid", 0),
            gid=entry.get("gid", 0),
            mtime=MTIME * 10**9,
            size=len(data),
            target=entry.get("target", ""),
            content=BytesContent(data) if is_file else None,
        )


def describe(tree: Tree) -> dict[str, dict[str, Any]]:
    """Every path of `tree` in the vectors' form, mtimes of files included."""
    found: dict[str, dict[str, Any]] = {}
    first_names: dict[Hashable, str] = {}
    for entry in _walk(tree, ""):
        path = f"/{entry.path}"
        item: dict[str, Any] = {"path": path, "type": entry.type.value, "uid": entry.uid, "gid": entry.gid}
        if entry.type is FileType.SYMLINK:
            item["target"] = entry.target
        else:
            item["mode"] = f"{entry.mode:04o}"
        if entry.type is FileType.FILE:
            item["mtime"] = entry.mtime / 10**9
            first = first_names.setdefault(entry.link_id, path) if entry.link_id is not None else path
            item |= {"hardlink_to": first} if first != path else _contents(entry)
        found[path] = item
    return found


def differences(expected: list[dict[str, Any]], tree: Tree) -> list[str]:
    """What is not as expected, one line for each path. Directories' mtimes are not compared."""
    wanted = {item["path"]: item for item in expected}
    found = describe(tree)
    lines = []
    for path in sorted(wanted.keys() | found.keys()):
        want, have = wanted.get(path), found.get(path)
        if want is None or have is None:
            lines.append(f"{path}: expected {want}, found {have}")
            continue
        compared = {key: value for key, value in want.items() if key != "mtime" or want["type"] == "file"}
        actual = {key: have.get(key) for key in compared}
        if actual != compared:
            lines.append(f"{path}: expected {compared}, found {actual}")
    return lines


def _walk(tree: Tree, directory: str) -> Iterator[Entry]:
    for name in tree.names(directory):
        entry = tree.entry(f"{directory}/{name}".strip("/"))
        assert entry is not None
        yield entry
        if entry.type is FileType.DIRECTORY:
            yield from _walk(tree, entry.path)


def _contents(entry: Entry) -> dict[str, Any]:
    assert entry.content is not None
    with entry.content.open() as stream:
        data = stream.read()
    assert len(data) == entry.size
    return {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}


def _data(entry: dict[str, Any]) -> bytes:
    return base64.b64decode(entry["b64"]) if "b64" in entry else str(entry["text"]).encode()


def _mode(entry: dict[str, Any]) -> int:
    return int(entry.get("mode", "0755" if entry.get("type") == "dir" else "0644"), 8)
