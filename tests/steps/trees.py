"""Steps and trees, made from little text."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import replace
from typing import Any

from builder.errors import Location
from builder.oci.config import ExecConfig
from builder.rootfs.entry import BytesContent, Change, Entry, FileType
from builder.rootfs.layered import LayeredTree
from builder.rootfs.tree import Tree, children
from builder.steps.copy import CopySettings
from builder.steps.step import AddStep, CopyStep, FromContext

NOW = 1_700_000_000_000_000_001
SETTINGS = CopySettings(NOW)
PASSWD = "root:x:0:0:root:/root:/bin/sh\nbob:x:1000:1001:Bob:/home/bob:/bin/sh\n"
GROUP = "root:x:0:\nbob:x:1001:\nwheel:x:10:bob\n"

_COMMON: dict[str, Any] = {
    "location": Location("Dockerfile", 3, 3),
    "text": "",
    "exec_config": ExecConfig(),
    "history": None,
}


def copy_step(*sources: str, to: str, **fields: Any) -> CopyStep:
    return CopyStep(**{**_COMMON, "origin": FromContext(), "sources": sources, "destination": to, **fields})


def add_step(*sources: str, to: str, **fields: Any) -> AddStep:
    return AddStep(**{**_COMMON, "sources": sources, "destination": to, **fields})


def step_fields(**fields: Any) -> dict[str, Any]:
    """What every step needs, with `fields`."""
    return {**_COMMON, **fields}


def file(path: str, text: str = "", **fields: Any) -> Entry:
    data = text.encode()
    return Entry(path, FileType.FILE, size=len(data), content=BytesContent(data), **{"mtime": 5, **fields})


def directory(path: str, mode: int = 0o755, **fields: Any) -> Entry:
    return Entry(path, FileType.DIRECTORY, mode, **{"mtime": 5, **fields})


def symlink(path: str, target: str, **fields: Any) -> Entry:
    return Entry(path, FileType.SYMLINK, 0o777, target=target, **{"mtime": 5, **fields})


def hardlink(path: str, first: str) -> Entry:
    return Entry(path, FileType.HARDLINK, target=first, mtime=5)


def tree(*changes: Change) -> LayeredTree:
    return LayeredTree().apply(changes)


def image(*changes: Change) -> LayeredTree:
    """A root filesystem with users."""
    return tree(directory("etc"), file("etc/passwd", PASSWD), file("etc/group", GROUP), *changes)


def listing(shown: Tree, below: str = "") -> dict[str, Entry]:
    """Every path, with hardlinks compared by which names they share, not by what they are identified with."""
    found: dict[str, Entry] = {}
    firsts: dict[Hashable, str] = {}
    pending = [below]
    while pending:
        path = pending.pop()
        for entry in children(shown, path):
            if entry.type is FileType.DIRECTORY:
                pending.append(entry.path)
            found[entry.path] = entry
    names: dict[Hashable, int] = {}
    for entry in found.values():
        names[entry.link_id] = names.get(entry.link_id, 0) + 1
    result = {}
    for path in sorted(found):
        entry = found[path]
        alone = entry.link_id is None or names[entry.link_id] == 1
        target = "" if alone else f"same file as {firsts.setdefault(entry.link_id, path)}"
        result[path] = replace(entry, target=entry.target or target)
    return result


def text(entry: Entry | None) -> str:
    assert entry is not None
    assert entry.content is not None
    with entry.content.open() as stream:
        return stream.read().decode()


def by_path(changes: Iterable[Change]) -> dict[str, Change]:
    return {change.path: change for change in changes}
