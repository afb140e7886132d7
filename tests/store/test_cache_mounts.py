"""Cache mounts of a store, as far as pruning goes."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from builder.store.cache_mounts import cache_slots
from builder.store.prune import prune


def home_of(store: Path) -> Path:
    """A cache with one slot, one that was being made, and one that was being fetched, when their builds were killed."""
    home = store / "mounts/hash"
    for name in ("0", "1.new", "2.new.whole"):
        (home / name).mkdir(parents=True)
        (home / name / "file").write_text(name)
    for name in ("lock", "0.lock"):
        (home / name).touch()
    return home


def test_what_a_killed_build_left_half_made_is_removed(tmp_path: Path) -> None:
    home = home_of(tmp_path)
    prune(tmp_path)
    assert sorted(os.listdir(home)) == ["0", "0.lock", "lock"]
    assert (home / "0/file").read_text() == "0"


def test_what_is_being_made_stays(tmp_path: Path) -> None:
    home = home_of(tmp_path)
    before = sorted(os.listdir(home))
    with open(home / "lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert [slot.path.name for slot in cache_slots(tmp_path / "mounts")] == ["0"]
        assert sorted(os.listdir(home)) == before
