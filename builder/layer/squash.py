"""Several layers' changes -> the changes of one layer (`--single-snapshot`)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from builder.rootfs.entry import Change, Entry, FileType, Opaque, Whiteout


def squash(layers: Iterable[Iterable[Change]]) -> list[Change]:
    """One list of changes that does to any tree what `layers`, lowest first, do to it one after the other.

    A path that an earlier layer made and a later one removed leaves a whiteout, which is harmless where nothing
    was. A directory that was removed and made again becomes opaque. A hardlink whose first name is gone takes
    over the file.
    """
    whiteouts: set[str] = set()
    opaques: set[str] = set()
    entries: dict[str, Entry] = {}
    for changes in layers:
        layer = list(changes)
        for change in layer:
            if isinstance(change, Whiteout):
                _forget(entries, opaques, whiteouts, change.path)
                _forget_one(entries, opaques, change.path)
                whiteouts.add(change.path)
            elif isinstance(change, Opaque):
                _forget(entries, opaques, whiteouts, change.path)
                opaques.add(change.path)
        for change in layer:
            if isinstance(change, Entry):
                _put(entries, opaques, whiteouts, change)
    # A directory made where something was removed must hide what the layers below have inside it.
    for path in [path for path in whiteouts if path in entries]:
        whiteouts.remove(path)
        if entries[path].type is FileType.DIRECTORY:
            opaques.add(path)
    changes_below: list[Change] = [Whiteout(path) for path in sorted(whiteouts)]
    changes_below += [Opaque(path) for path in sorted(opaques)]
    return changes_below + sorted(entries.values(), key=lambda entry: (entry.type is FileType.HARDLINK, entry.path))


def _put(entries: dict[str, Entry], opaques: set[str], whiteouts: set[str], entry: Entry) -> None:
    old = entries.get(entry.path)
    if entry.type is not FileType.DIRECTORY:
        _forget(entries, opaques, whiteouts, entry.path)
        opaques.discard(entry.path)
    if old is not None and old.type is FileType.FILE:
        _pass_on(entries, old)
    entries[entry.path] = entry


def _forget(entries: dict[str, Entry], opaques: set[str], whiteouts: set[str], path: str) -> None:
    """Drop everything below `path`."""
    below = path + "/" if path else ""
    for other in [other for other in entries if other.startswith(below) and other != path]:
        if other in entries:
            _forget_one(entries, opaques, other)
    opaques.difference_update([other for other in opaques if other.startswith(below) and other != path])
    whiteouts.difference_update([other for other in whiteouts if other.startswith(below) and other != path])


def _forget_one(entries: dict[str, Entry], opaques: set[str], path: str) -> None:
    entry = entries.pop(path, None)
    opaques.discard(path)
    if entry is not None and entry.type is FileType.FILE:
        _pass_on(entries, entry)


def _pass_on(entries: dict[str, Entry], file: Entry) -> None:
    """`file` lost its name: its first remaining hardlink becomes the file, the others point to that one."""
    links = [other for other in entries.values() if other.type is FileType.HARDLINK and other.target == file.path]
    if not links:
        return
    heir = links[0].path
    entries[heir] = replace(file, path=heir)
    for link in links[1:]:
        entries[link.path] = replace(link, target=heir)
