"""Owners that are noted because files cannot have them."""

from __future__ import annotations

import os
from pathlib import Path

from builder.isolation.owners import RecordedOwners
from builder.rootfs.entry import Entry, FileType


def test_a_number_that_is_used_again_does_not_pass_an_owner_on(tmp_path: Path) -> None:
    """A link cannot have the note itself, and file systems give its number to the next file."""
    owners, parent = RecordedOwners(), os.open(tmp_path, os.O_PATH)
    try:
        for number in range(20):
            os.symlink("target", tmp_path / "link")
            owners.set(parent, "link", Entry("link", FileType.SYMLINK, uid=5, gid=6, target="target"))
            os.unlink(tmp_path / "link")
            directory = tmp_path / str(number)
            directory.mkdir()
            entry = owners.of(Entry(str(number), FileType.DIRECTORY), str(directory))
            assert (entry.uid, entry.gid) == (0, 0)
    finally:
        os.close(parent)


def test_a_link_of_equal_length_is_another_link(tmp_path: Path) -> None:
    owners, parent = RecordedOwners(), os.open(tmp_path, os.O_PATH)
    try:
        for number in range(20):
            os.symlink("target", tmp_path / "link")
            link = Entry("link", FileType.SYMLINK, uid=5, gid=6, target="target")
            owners.set(parent, "link", link)
            assert owners.of(Entry("link", FileType.SYMLINK, target="target"), str(tmp_path / "link")) == link
            os.unlink(tmp_path / "link")
            other = tmp_path / str(number)
            os.symlink("tegrat", other)
            entry = owners.of(Entry(str(number), FileType.SYMLINK, target="tegrat"), str(other))
            assert (entry.uid, entry.gid) == (0, 0)
    finally:
        os.close(parent)
