"""Keeping a store small: what was unused longest goes first, and never what somebody uses."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from builder.isolation.probe import PROBE
from builder.isolation.removal import remove_tree
from builder.store.cache_mounts import CacheSlot, cache_slots
from builder.store.entries import OTHERS, PARTIAL, name_of, remove_dead_partial, remove_removed, remove_unused
from builder.store.images import KIND as IMAGES
from builder.store.images import NAMES


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """An entry as `limpet cache list` shows it: `size` in bytes on disk, `used` in seconds since 1970."""

    kind: str
    name: str
    size: int
    used: float
    path: Path


@dataclass(frozen=True, slots=True)
class Pruned:
    """How many entries were removed, their size, and that of what is left, in bytes."""

    removed: int = 0
    freed: int = 0
    left: int = 0


def entries_of(root: Path) -> list[StoredEntry]:
    """All entries, those that were unused longest first. Raises OSError when `root` cannot be read."""
    return sorted(_entries(root), key=lambda entry: entry.used)


def prune(root: Path, *, size: int | None = None, unused_since: float | None = None) -> Pruned:
    """Remove what killed builds left, what was last used before `unused_since` (seconds since 1970), and then what was
    unused longest until at most `size` bytes are left. What is in use stays. Raises OSError.
    """
    remove_leftovers(root)
    entries: list[StoredEntry | CacheSlot] = [*_entries(root), *cache_slots(root / "mounts")]
    left = sum(entry.size for entry in entries)
    removed = freed = 0
    for entry in sorted(entries, key=lambda entry: entry.used):
        is_old = unused_since is not None and entry.used < unused_since
        if not is_old and (size is None or left <= size):
            continue
        gone = entry.remove_unused() if isinstance(entry, CacheSlot) else remove_unused(root, entry.path)
        if gone:
            removed, freed, left = removed + 1, freed + entry.size, left - entry.size
    _remove_names(root)
    return Pruned(removed, freed, left)


def remove_leftovers(root: Path) -> None:
    """Remove what killed builds left half-made or half-removed. Raises OSError."""
    for path in (*(root / NAMES).glob(".*"), *root.glob(f"{PROBE}*")):
        # They live for moments, and have no lock that would tell whose they are.
        with contextlib.suppress(FileNotFoundError):
            if path.lstat().st_mtime < time.time() - 3600:
                remove_tree(path) if path.is_dir() else path.unlink()
    partial = root / PARTIAL
    if not partial.is_dir():
        return
    names = set(os.listdir(partial))
    for name in sorted({name.removesuffix(".lock") for name in names}):
        if name.startswith("removed."):
            remove_removed(partial / name)
        else:
            remove_dead_partial(partial / name)


def _remove_names(root: Path) -> None:
    """Remove the names of images that are not here any more."""
    images = os.listdir(root / IMAGES) if (root / IMAGES).is_dir() else []
    for path in (root / NAMES).glob("*.json"):
        try:
            prefix = name_of(json.loads(path.read_bytes())["digest"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            prefix = "damaged"
        if not any(name.startswith(prefix) for name in images):
            path.unlink(missing_ok=True)


def _entries(root: Path) -> Iterator[StoredEntry]:
    for kind in os.listdir(root):
        if kind in (PARTIAL, *OTHERS) or not (root / kind).is_dir():
            continue
        for name in os.listdir(root / kind):
            path = root / kind / name
            try:
                used = os.stat(path / "lock").st_mtime
                size = json.loads((path / "entry.json").read_bytes())["size"]
                yield StoredEntry(kind, name, int(size), used, path)
            except PermissionError:
                continue  # another user's private one
            except (OSError, ValueError, KeyError, TypeError):
                if path.is_dir():  # otherwise somebody else has just removed it
                    yield StoredEntry(kind, name, 0, 0.0, path)  # damaged: to be removed first
