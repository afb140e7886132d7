"""What looks changed and is not: traces of making room for a process and of putting everything back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from builder.rootfs.changes import Snapshot, Status
from builder.rootfs.entry import Change, Entry, FileType


@dataclass(slots=True)
class Exchanged:
    """What runs exchanged in a root and put back, collected since the last commit.

    `covered` paths of the image are no changes, whatever their ctime says. `directories` are as they were before
    something was put into them and taken out again. `renewed` has, for each run, the new statuses by old ones of what
    was moved to and fro and not changed otherwise.
    """

    covered: set[str] = field(default_factory=set)
    directories: dict[str, Entry] = field(default_factory=dict)
    renewed: list[Mapping[Status, Status]] = field(default_factory=list)

    def add(self, covered: Iterable[str], directories: Mapping[str, Entry]) -> None:
        """One more run; what an earlier one found in a directory is older and stays."""
        self.covered.update(covered)
        self.directories = {**directories, **self.directories}

    def renew(self, before: Snapshot) -> Snapshot:
        """`before` as it would be if it had been taken after everything was moved."""
        statuses = before.statuses
        for renewed in self.renewed:
            # By status and not by path: the other names of a moved file have the same one.
            statuses = {path: renewed.get(status, status) for path, status in statuses.items()}
        return replace(before, statuses=statuses)


def without_untouched(changes: Iterable[Change], untouched: Callable[[Entry], bool]) -> list[Change]:
    """`changes` (parents first) less directories that are `untouched` and have no change inside."""
    kept: list[Change] = []
    above: set[str] = set()
    for change in reversed(list(changes)):
        if (
            isinstance(change, Entry)
            and change.type is FileType.DIRECTORY
            and change.path not in above
            and untouched(change)
        ):
            continue
        above.add(change.path.rpartition("/")[0])
        kept.append(change)
    return kept[::-1]
