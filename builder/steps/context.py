"""The build context as a tree: a directory of this machine without what .dockerignore excludes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from builder.dockerfile.patterns import PatternMatcher, Verdict, read_ignore_file
from builder.errors import ContextError
from builder.rootfs.directory import DirectoryTree
from builder.rootfs.entry import Entry, FileType
from builder.rootfs.paths import resolve
from builder.steps.destination import parent_of

_IGNORE = ".dockerignore"


@dataclass(frozen=True, slots=True)
class IgnoreFile:
    """`name` is what people call it; `patterns` in its order."""

    name: str
    patterns: tuple[str, ...]


def find_ignore_file(context: Path, dockerfile: Path | None) -> IgnoreFile | None:
    """`<dockerfile>.dockerignore` beside the Dockerfile, else `.dockerignore` at the root of the context.

    Raises ContextError if it cannot be read. Malformed patterns are found by ContextTree.
    """
    candidates = [context / _IGNORE]
    if dockerfile is not None:
        candidates.insert(0, dockerfile.with_name(dockerfile.name + _IGNORE))
    for path in candidates:
        try:
            data = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            continue
        except OSError as error:
            raise ContextError(f"cannot read {path}: {error.strerror}") from error
        return IgnoreFile(path.name, read_ignore_file(data))
    return None


class ContextTree:
    """Tree over directory `path`: everything belongs to 0:0, and what `ignore` excludes is not there.

    Directories that are excluded are there nevertheless when something in them is not. Names are listed and files
    examined when they are asked for, and directories that cannot have anything in them that is not excluded never.
    Creating one raises PatternError for a malformed pattern.
    """

    def __init__(self, path: str | Path, ignore: IgnoreFile | None = None) -> None:
        self.path = str(path)
        self.ignore_file = ignore.name if ignore else ""
        self._directory = DirectoryTree(path)
        self._patterns = ignore.patterns if ignore else ()
        self._matcher = PatternMatcher(self._patterns) if self._patterns else None
        self._verdicts: dict[str, Verdict] = {"": PatternMatcher.NOTHING}  # on directories

    def entry(self, path: str) -> Entry | None:
        entry = self._directory.entry(path)
        if entry is None or not self._shown(path, entry.type is FileType.DIRECTORY):
            return None
        return _of_root(entry)

    def names(self, path: str) -> list[str]:
        return [entry.path.rpartition("/")[2] for entry in self.children(path)]

    def children(self, path: str) -> list[Entry]:
        """What is in directory `path`, sorted by bytes."""
        if self._matcher is None:
            return [_of_root(entry) for entry in self._directory.children(path)]
        if self.entry(path) is None:
            return []
        return [
            _of_root(entry)
            for entry in self._directory.children(path)
            if self._shown(entry.path, entry.type is FileType.DIRECTORY)
        ]

    def location(self, path: str) -> str:
        """Where `path` is on disk, whether excluded or not."""
        return self._directory.location(path)

    def is_as_on_disk(self, path: str) -> bool:
        """Whether `path` on disk, with everything below, is what this tree shows: nothing excluded, all of root."""
        top = self._directory.entry(path)
        if top is None or not _is_of_root(top) or not self._shown(path, top.type is FileType.DIRECTORY):
            return False
        return top.type is not FileType.DIRECTORY or all(
            _is_of_root(entry) and self._shown(entry.path, entry.type is FileType.DIRECTORY)
            for entry in self._directory.walk(path)
        )

    def ignored_by(self, path: str) -> str:
        """The pattern because of which `path`, symlinks followed, is not there although it is on disk; else ""."""
        if self._matcher is None:
            return ""
        path = resolve(self._directory, path)
        if self._directory.entry(path) is None or self.entry(path) is not None:
            return ""
        excluding = (pattern for pattern in reversed(self._patterns) if not pattern.startswith("!"))
        return next((pattern for pattern in excluding if PatternMatcher([pattern]).excludes(path)), "")

    def _shown(self, path: str, is_directory: bool) -> bool:
        if self._matcher is None or not path:
            return True
        return not self._verdict(path).excluded or (is_directory and self._shows_something_below(path))

    def _verdict(self, path: str) -> Verdict:
        assert self._matcher is not None
        parent = parent_of(path)
        known = self._verdicts.get(parent)
        if known is None:
            known = self._verdicts[parent] = self._verdict(parent)
        return self._matcher.match(path, known)

    def _shows_something_below(self, path: str) -> bool:
        assert self._matcher is not None
        if self._matcher.prunes(path, self._verdict(path)):
            return False
        return any(
            self._shown(entry.path, entry.type is FileType.DIRECTORY) for entry in self._directory.children(path)
        )


def _of_root(entry: Entry) -> Entry:
    return entry if _is_of_root(entry) else replace(entry, uid=0, gid=0)


def _is_of_root(entry: Entry) -> bool:
    return entry.uid == entry.gid == 0
