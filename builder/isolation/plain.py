"""A root in a plain directory: where the work directory cannot carry an overlay, or nothing can be mounted."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from builder.isolation import Process
from builder.isolation.apply import apply_changes
from builder.isolation.contents import write_content
from builder.isolation.launch import Running
from builder.isolation.owners import Owners
from builder.isolation.removal import remove_tree
from builder.isolation.runner import Runner
from builder.isolation.untouched import Exchanged, without_untouched
from builder.rootfs.changes import Snapshot, Status, changes
from builder.rootfs.directory import DirectoryTree
from builder.rootfs.entry import Change, Entry, FileContent


class PlainRoot:
    """The root in `directory`/root, which exists and is unpacked.

    Used by one thread, except `close`, which any thread may call.
    """

    def __init__(self, directory: Path, runner: Runner, owners: Owners) -> None:
        self._directory = directory
        self._path = directory / "root"
        self._runner = runner
        self._owners = owners
        self._running = Running()
        self._lock = threading.Lock()
        self._ran = False  # since the last commit
        self._exchanged = Exchanged()
        self._commits = 0
        self._before = Snapshot.of(self._path)

    @property
    def path(self) -> Path:
        return self._path

    @property
    def looks_everywhere(self) -> bool:
        return True

    def tree(self) -> DirectoryTree:
        return DirectoryTree(self._path, self._owners.of if self._owners.recorded else None)

    def run(self, process: Process) -> None:
        with self._lock:
            existing = self._existing() if self._owners.recorded else {}
            # What root makes is root's already, but for the group that some directories give.
            noted = (process.uid, process.gid) != (0, 0) or any(map(_gives_group, existing.values()))
            self._ran = True
            self._runner.run(process, self._path, self._directory / "run", self._running, self._exchanged)
            if existing and noted:
                made = Snapshot.of(self._path).statuses.keys() - existing.keys()
                self._owners.adopt(
                    self._path,
                    made,
                    process.uid,
                    process.gid,
                    lambda path: path in existing and _gives_group(existing[path]),
                )

    def commit(self) -> Iterable[Change]:
        with self._lock:
            self._ran = False
            after = Snapshot.of(self._path)
            self._before = self._exchanged.renew(self._before)
            owners = self._owners.of if self._owners.recorded else None
            found = [
                change for change in changes(self._before, after, owners) if change.path not in self._exchanged.covered
            ]
            found = without_untouched(found, lambda entry: self._untouched(entry, after))
            self._before = after
            self._exchanged = Exchanged()
            return self._keep_contents(found)

    def apply(self, changes: Iterable[Change]) -> None:
        with self._lock:
            # With uncommitted changes below, these become part of the next commit, which says the same of them.
            apply_changes(changes, self._path, self._owners)
            if not self._ran:
                self._before = Snapshot.of(self._path)

    def close(self) -> None:
        """End every process and remove the directory."""
        self._running.end()
        with self._lock:
            remove_tree(self._directory)

    def _existing(self) -> Mapping[str, Status]:
        return (Snapshot.of(self._path) if self._ran else self._before).statuses

    def _untouched(self, directory: Entry, after: Snapshot) -> bool:
        path = directory.path
        return (
            self._exchanged.directories.get(path) == directory
            or self._before.statuses.get(path) == after.statuses[path]
        )

    def _keep_contents(self, found: list[Change]) -> list[Change]:
        """The same changes with contents in files of their own, which later processes cannot touch."""
        self._commits += 1
        directory = self._directory / f"commit{self._commits}"
        directory.mkdir()
        copies: dict[Hashable, FileContent] = {}
        kept: list[Change] = []
        for change in found:
            if isinstance(change, Entry) and change.content is not None:
                key = change.link_id or change.path
                if key not in copies:
                    copies[key] = self._copy(change, directory / str(len(copies)))
                change = replace(change, content=copies[key])
            kept.append(change)
        return kept

    def _copy(self, entry: Entry, path: Path) -> FileContent:
        assert entry.content is not None
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            write_content(entry.content, descriptor)
        finally:
            os.close(descriptor)
        return FileContent(str(path))


def _gives_group(status: Status) -> bool:
    """Whether it is a directory with the setgid bit."""
    mode = status[3]
    return stat.S_ISDIR(mode) and bool(mode & stat.S_ISGID)
