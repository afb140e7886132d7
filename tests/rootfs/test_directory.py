"""A directory of this machine as a tree."""

from __future__ import annotations

import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from builder.rootfs.directory import DirectoryTree
from builder.rootfs.entry import Entry, FileType
from tests.layer.conftest import as_root


@pytest.fixture
def tree(tmp_path: Path) -> DirectoryTree:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "file").write_text("content")
    (tmp_path / "link").symlink_to("d")
    return DirectoryTree(tmp_path)


def test_entries_are_as_lstat_says(tree: DirectoryTree, tmp_path: Path) -> None:
    os.chmod(tmp_path / "d/file", 0o4711)
    os.utime(tmp_path / "d/file", ns=(0, 1_500_000_000_123_456_789))
    entry = tree.entry("d/file")
    assert entry is not None
    assert (entry.type, entry.mode, entry.mtime, entry.size) == (FileType.FILE, 0o4711, 1_500_000_000_123_456_789, 7)
    assert entry.content is not None
    assert entry.content.open().read() == b"content"
    assert (entry.uid, entry.gid, entry.link_id) == (os.geteuid(), os.getegid(), None)
    root = tree.entry("")
    assert root is not None
    assert root.type is FileType.DIRECTORY


def test_nothing_is_seen_through_a_link_or_below_a_file(tree: DirectoryTree) -> None:
    link = tree.entry("link")
    assert link is not None
    assert (link.type, link.target, link.mode, link.size) == (FileType.SYMLINK, "d", 0o777, 0)
    assert tree.names("d") == ["file"]
    for path in ("link/file", "d/file/x", "no", "no/x", "n" * 300):
        assert tree.entry(path) is None
        assert tree.names(path) == []
    assert tree.names("link") == []


def test_sockets_are_left_out_and_names_are_sorted_by_bytes(tree: DirectoryTree, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
    names = ["Z", "a", "é", os.fsdecode(b"\xff"), "\U0001f600"]
    for name in names:
        (tmp_path / name).touch()
    expected = sorted([*names, "d", "link"], key=os.fsencode)
    assert tree.names("") == expected
    assert tree.entry("socket") is None
    assert [entry.path for entry in tree.walk() if "/" not in entry.path] == expected


def test_hardlinks_share_an_identity(tree: DirectoryTree, tmp_path: Path) -> None:
    os.link(tmp_path / "d/file", tmp_path / "second")
    one, two = tree.entry("d/file"), tree.entry("second")
    assert one is not None and two is not None
    assert one.link_id == two.link_id is not None


@pytest.mark.root
@as_root
def test_only_attributes_of_the_image_are_seen(tree: DirectoryTree, tmp_path: Path) -> None:
    for name in ("user.a", "user.overlay.opaque", "user.limpet.owner", "trusted.b", "trusted.overlay.opaque"):
        os.setxattr(tmp_path / "d", name, b"x")
    entry = tree.entry("d")
    assert entry is not None
    assert entry.xattrs == {"user.a": b"x", "trusted.b": b"x"}


@pytest.mark.root
@as_root
def test_devices(tree: DirectoryTree, tmp_path: Path) -> None:
    os.mknod(tmp_path / "null", 0o20666, os.makedev(1, 300))
    entry = tree.entry("null")
    assert entry is not None
    assert (entry.type, entry.device) == (FileType.CHARACTER_DEVICE, (1, 300))


def test_owners_are_translated(tmp_path: Path) -> None:
    (tmp_path / "x").touch()

    def owners(entry: Entry, location: str) -> Entry:
        assert location == f"{tmp_path}/{entry.path}"
        return replace(entry, uid=7, gid=8)

    entry = DirectoryTree(tmp_path, owners).entry("x")
    assert entry is not None
    assert (entry.uid, entry.gid) == (7, 8)
