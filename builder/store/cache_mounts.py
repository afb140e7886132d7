"""The caches of `RUN --mount=type=cache` in a store, as far as pruning goes: see builder.steps.cache_mounts."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from builder.isolation.removal import remove_tree
from builder.store.locks import lock_exclusive, lock_of

_HALF_MADE = re.compile(r"\d+\.new(\.\w+)?")


@dataclass(frozen=True, slots=True)
class CacheSlot:
    """One directory of a cache: `size` in bytes on disk, `used` in seconds since 1970."""

    path: Path
    size: int
    used: float

    def remove_unused(self) -> bool:
        """Remove it unless a RUN uses it. Raises OSError."""
        try:
            descriptor = lock_exclusive(lock_of(self.path))
        except FileNotFoundError:
            return False
        if descriptor is None:
            return False
        try:
            removed = self.path.with_name(f"removed.{uuid.uuid4().hex}")
            os.rename(self.path, removed)
            remove_tree(removed)
            return True
        except FileNotFoundError:
            return False
        finally:
            os.close(descriptor)


def cache_slots(directory: Path) -> Iterator[CacheSlot]:
    """The caches below `directory`. What a killed prune or build left is removed. Raises OSError."""
    if not directory.is_dir():
        return
    for home in directory.iterdir():
        _remove_half_made(home)
        for path in home.iterdir() if home.is_dir() else ():
            if path.name.startswith("removed."):
                remove_tree(path)
            elif path.name.isdigit():
                try:
                    yield CacheSlot(path, _size(path), os.stat(lock_of(path)).st_mtime)
                except FileNotFoundError:
                    continue  # somebody else removes it, or nobody has used it yet


def _remove_half_made(home: Path) -> None:
    """Remove what was to become a slot, unless it is in the making now."""
    half_made = [path for path in home.iterdir() if _HALF_MADE.fullmatch(path.name)] if home.is_dir() else []
    if not half_made:
        return
    try:
        descriptor = lock_exclusive(home / "lock")
    except FileNotFoundError:
        return
    if descriptor is None:
        return
    try:
        for path in half_made:
            remove_tree(path)
    finally:
        os.close(descriptor)


def _size(directory: Path) -> int:
    total = os.lstat(directory).st_blocks * 512
    for parent, directories, files in os.walk(directory):
        for name in (*directories, *files):
            try:
                total += os.lstat(f"{parent}/{name}").st_blocks * 512
            except FileNotFoundError:
                continue  # a cache that is in use changes
    return total
