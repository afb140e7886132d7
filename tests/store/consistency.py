"""What holds for a store whenever no build is writing to it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from builder.store.entries import PARTIAL
from builder.store.layers import fingerprint


def assert_consistent(store: Path) -> None:
    """Every entry is whole and is what its name says."""
    for lock in store.glob("*/*/lock"):
        if lock.parent.parent.name in (PARTIAL, "mounts"):
            continue
        _assert_whole(lock.parent)
    kinds = [path for path in store.iterdir() if path.is_dir() and path.name not in (PARTIAL, "mounts", "names")]
    assert all((entry / "lock").exists() for kind in kinds for entry in kind.iterdir())
    for name in store.glob("names/*"):
        assert _json(name)["digest"].startswith("sha256:")


def _assert_whole(entry: Path) -> None:
    kind, value = entry.parent.name, _json(entry / "entry.json")
    assert (value["kind"], value["name"]) == (kind, entry.name)
    if kind == "blobs":
        assert entry.name == "sha256-" + hashlib.sha256((entry / "data").read_bytes()).hexdigest(), entry
    elif kind == "indexes":
        assert value["sha256"] == hashlib.sha256((entry / "changes.json").read_bytes()).hexdigest(), entry
    elif kind == "images":
        assert value["digest"].startswith("sha256:"), entry
    else:
        assert kind.startswith("layers-")
        assert (entry / "tree").is_dir(), entry
        assert value["fingerprint"] == fingerprint(entry / "tree")[0], entry


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise AssertionError(f"{path}: {error}") from error
