"""Layers unpacked one on the other, as umoci unpacks them: whiteouts, opaque markers, links that lead out."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import pytest

from builder.layer.index import read_index
from builder.layer.unpack import unpack
from builder.rootfs.directory import DirectoryTree
from builder.rootfs.entry import BytesContent, Entry, FileType
from builder.rootfs.layered import LayeredTree
from tests.layer.conftest import raw_tar
from tests.rootfs.trees import comparable

_TYPES = {kind.value: kind for kind in FileType}


@pytest.mark.vectors("layer_extract")
def test_layer_extract(case: dict[str, Any], tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "file"
    root.mkdir()
    outside.write_text("outside")
    (tmp_path / "spool").mkdir()
    tree = LayeredTree()
    for number, entries in enumerate(case["layers"]):
        archive = raw_tar([(item["path"], _entry(item)) for item in entries])
        before = _directories(root)
        unpack(io.BytesIO(archive), root)
        tree = tree.apply(read_index(io.BytesIO(archive), spool=tmp_path / "spool"))
        if number and case.get("parent_metadata_unchanged"):
            for path, metadata in _directories(root).items():
                assert before[path] == metadata, path
    for path in case["must_exist"]:
        assert os.path.lexists(root / path), path
    for path in case.get("must_not_exist", []):
        assert not os.path.lexists(root / path), path
    assert outside.read_text() == "outside"
    assert sorted(os.listdir(tmp_path)) == ["file", "root", "spool"]
    assert comparable(tree) == comparable(DirectoryTree(root))


def _entry(item: dict[str, Any]) -> Entry:
    data = item.get("text", "").encode()
    kind = _TYPES[item["type"]]
    directory = kind is FileType.DIRECTORY
    content = BytesContent(data) if kind is FileType.FILE else None
    mode = 0o755 if directory else 0o644
    return Entry("", kind, mode, size=len(data), mtime=10**9, target=item.get("linkname", ""), content=content)


def _directories(root: Path) -> dict[str, tuple[int, ...]]:
    found = {}
    for path, _, _ in os.walk(root):
        status = os.lstat(path)
        found[path] = (status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns)
    return found
