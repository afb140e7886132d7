"""Work directories vanish whole, and nothing else does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from builder.isolation.removal import remove_large_tree, remove_tree


@pytest.mark.parametrize("remove", [remove_tree, remove_large_tree])
def test_everything_below_goes_and_nothing_that_links_lead_to(remove, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "a/b/c/d/e").mkdir(parents=True)
    (outside / "file").write_text("stays")
    work = tmp_path / "work"
    for name in ("layers/1/usr/lib/deep/deeper", "layers/1/usr/share", "layers/2", "empty"):
        (work / name).mkdir(parents=True)
        os.symlink(outside, work / name / "link")
        (work / name / "file").write_text("goes")
        os.mkfifo(work / name / "fifo")
    os.symlink("nowhere", work / "dangling")
    for name in ("layers/1/usr/lib/deep", "layers/1/usr", "layers/2"):
        (work / name).chmod(0)
    remove(work)
    assert not work.exists()
    assert (outside / "file").read_text() == "stays"
    assert (outside / "a/b/c/d/e").is_dir()
