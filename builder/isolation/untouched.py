"""What looks changed and is not: traces of making room for a process and of putting everything back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from builder.rootfs.entry import Change, Entry, FileType


@dataclass(frozen=True, slots=True)
class Exchanged:
    """What a run exchanged and put back. `covered` paths of the image are no changes, whatever their ctime says.

    `directories` are as they were before something was put into them and taken out again.
    """

    covered: frozenset[str] = frozenset()
    directories: Mapping[str, Entry] = field(default_factory=dict)


def without_untouched(changes: Iterable[Change], before: Callable[[str], Entry | None]) -> list[Change]:
    """`changes` (parents first) less directories that are as `before` says and have no change inside."""
    kept: list[Change] = []
    above: set[str] = set()
    for change in reversed(list(changes)):
        directory = isinstance(change, Entry) and change.type is FileType.DIRECTORY
        if directory and change.path not in above and before(change.path) == change:
            continue
        above.add(change.path.rpartition("/")[0])
        kept.append(change)
    return kept[::-1]
