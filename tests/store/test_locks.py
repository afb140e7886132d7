"""Lock files can be locked on every file system."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from builder.store.locks import lock_exclusive, lock_new, lock_shared


@pytest.mark.parametrize("lock", [lock_exclusive, lock_new])
def test_an_exclusive_lock_is_one_for_nfs(tmp_path: Path, lock: object) -> None:
    """NFS makes of flock(2) a lock of fcntl(2), which wants a file that is open for writing."""
    path = tmp_path / "lock"
    path.touch()
    descriptor = lock_exclusive(path) if lock is lock_exclusive else lock_new(path)
    assert descriptor is not None
    fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(descriptor)


def test_a_shared_lock_is_one_for_nfs(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.touch(0o444)
    descriptor = lock_shared(path)
    assert descriptor is not None
    fcntl.lockf(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    assert lock_exclusive(path) is None
    os.close(descriptor)
