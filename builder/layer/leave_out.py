"""Changes that do not become part of a layer (`--ignore-path`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from builder.rootfs.entry import Change, Entry, FileType


def leave_out(changes: Iterable[Change], ignored: Callable[[str], bool]) -> list[Change]:
    """`changes` but for those of paths that `ignored` says yes to: neither added nor removed.

    A hardlink whose first name is left out takes over the file.
    """
    kept: list[Change] = []
    heirs: dict[str, str] = {}  # first name that is left out -> the name that has the file instead
    left_out: dict[str, Entry] = {}
    for change in changes:
        if ignored(change.path):
            if isinstance(change, Entry) and change.type is FileType.FILE:
                left_out[change.path] = change
        elif isinstance(change, Entry) and change.type is FileType.HARDLINK and change.target in left_out:
            if change.target in heirs:
                kept.append(replace(change, target=heirs[change.target]))
            else:
                heirs[change.target] = change.path
                kept.append(replace(left_out[change.target], path=change.path))
        else:
            kept.append(change)
    return kept
