"""What changed, said as layers say it. That nothing is missing is a law of tests/layer/test_laws.py."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from builder.errors import IsolationError
from builder.rootfs.changes import Snapshot, changes, overlay_changes
from builder.rootfs.entry import Change, Entry, FileType, Opaque, Whiteout
from tests.layer.conftest import as_root


def said(found: list[Change]) -> list[str]:
    """Changes in short: path, and what about it."""
    words = []
    for change in found:
        if isinstance(change, Whiteout):
            words.append(f"{change.path} gone")
        elif isinstance(change, Opaque):
            words.append(f"{change.path} opaque")
        else:
            target = f" = {change.target}" if change.type is FileType.HARDLINK else ""
            words.append(f"{change.path} {change.type.value}{target}")
    return words


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "a" / "deep" / "er").mkdir(parents=True)
    for name in ("a/deep/er/file", "a/other", "b", "c"):
        (root / name).write_text(name)
    return root


def test_nothing_changed(root: Path) -> None:
    assert list(changes(Snapshot.of(root), Snapshot.of(root))) == []


def test_directories_above_a_change_are_part_of_it(root: Path) -> None:
    before = Snapshot.of(root)
    (root / "a/deep/er/file").write_text("changed")
    assert said(list(changes(before, Snapshot.of(root)))) == [
        "a dir",
        "a/deep dir",
        "a/deep/er dir",
        "a/deep/er/file file",
    ]


def test_same_size_and_same_mtime_do_not_hide_a_change(root: Path) -> None:
    before = Snapshot.of(root)
    status = os.stat(root / "b")
    (root / "b").write_text("B")
    os.utime(root / "b", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert said(list(changes(before, Snapshot.of(root)))) == ["b file"]


def test_removal_and_replacement(root: Path) -> None:
    before = Snapshot.of(root)
    shutil.rmtree(root / "a" / "deep")
    (root / "b").unlink()
    (root / "b").mkdir()
    (root / "b/new").touch()
    (root / "c").unlink()
    assert said(list(changes(before, Snapshot.of(root)))) == ["a dir", "a/deep gone", "b dir", "b/new file", "c gone"]
    shutil.rmtree(root / "a")
    (root / "a").symlink_to("b")
    assert said(list(changes(before, Snapshot.of(root)))) == ["a symlink", "b dir", "b/new file", "c gone"]


def test_mount_points_are_skipped(root: Path) -> None:
    before = Snapshot.of(root, skip=["a/deep"])
    (root / "a/deep/er/file").write_text("changed")
    (root / "a/deep/new").touch()
    assert list(changes(before, Snapshot.of(root, skip=["a/deep"]))) == []
    # One that is a mount point by now only.
    assert list(changes(Snapshot.of(root), Snapshot.of(root, skip=["a/deep"]))) == []


def test_names_of_one_file(root: Path) -> None:
    before = Snapshot.of(root)
    os.link(root / "b", root / "a/second")
    os.link(root / "b", root / "third")
    assert said(list(changes(before, Snapshot.of(root)))) == [
        "a dir",
        "a/second file",
        "b hardlink = a/second",
        "third hardlink = a/second",
    ]


@pytest.fixture
def upper(tmp_path: Path) -> Path:
    """An upper directory as overlayfs leaves it."""
    upper = tmp_path / "upper"
    (upper / "d").mkdir(parents=True)
    os.mknod(upper / "gone", 0o20000, 0)
    os.link(upper / "gone", upper / "d" / "gone too")  # as overlayfs does
    return upper


@pytest.mark.root
@as_root
def test_whiteouts_share_an_inode_and_are_no_hardlinks(upper: Path) -> None:
    assert said(list(overlay_changes(upper))) == ["d dir", "d/gone too gone", "gone gone"]


@pytest.mark.root
@as_root
@pytest.mark.parametrize("xattr", ["trusted.overlay.opaque", "user.overlay.opaque"])
def test_opaque_directories_are_said_where_they_hide_something(upper: Path, tmp_path: Path, xattr: str) -> None:
    os.setxattr(upper / "d", xattr, b"y")
    lower = tmp_path / "lower"
    lower.mkdir()
    assert "d opaque" in said(list(overlay_changes(upper)))
    assert "d opaque" not in said(list(overlay_changes(upper, [lower])))
    (lower / "d").mkdir()
    assert said(list(overlay_changes(upper, [lower])))[:2] == ["d dir", "d opaque"]
    (entry,) = [one for one in overlay_changes(upper) if isinstance(one, Entry)]
    assert entry.xattrs == {}


@pytest.mark.root
@as_root
@pytest.mark.parametrize("note", ["metacopy", "redirect"])
def test_incomplete_upper_directories_are_refused(upper: Path, note: str) -> None:
    (upper / "file").touch()
    os.setxattr(upper / ("file" if note == "metacopy" else "d"), f"trusted.overlay.{note}", b"")
    with pytest.raises(IsolationError, match=note):
        list(overlay_changes(upper))


@pytest.mark.root
@as_root
def test_names_of_one_file_in_an_upper_directory(upper: Path, tmp_path: Path) -> None:
    """A link count that counts names elsewhere, too: overlayfs's index, or a path that is skipped."""
    (upper / "x").write_text("x")
    os.link(upper / "x", upper / "d" / "y")
    os.link(upper / "x", tmp_path / "elsewhere")
    (upper / "z").write_text("z")
    os.link(upper / "z", tmp_path / "z elsewhere")
    assert said(list(overlay_changes(upper, skip=["gone"]))) == [
        "d dir",
        "d/gone too gone",
        "d/y file",
        "x hardlink = d/y",
        "z file",
    ]
