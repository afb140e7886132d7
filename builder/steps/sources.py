"""What a COPY reads: its sources found in a tree, and everything below them."""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass

from builder.dockerfile.patterns import PatternMatcher, Verdict
from builder.errors import DockerfileError, ImageError, Location
from builder.rootfs.entry import Entry, FileType
from builder.rootfs.paths import normalise, resolve
from builder.rootfs.tree import Tree, children
from builder.steps import wildcard
from builder.steps.context import ContextTree

_SPECIAL = re.compile(r"[*?\[\\]")  # what may make a pattern's component stand for other names than itself


@dataclass(frozen=True, slots=True)
class Selection:
    """Which part of a tree a COPY wants. `exclude` and the patterns of `parents` are relative to each source."""

    sources: tuple[str, ...]
    exclude: tuple[str, ...] = ()
    parents: bool = False


@dataclass(frozen=True, slots=True)
class Source:
    """One file or directory to copy: `path` in the tree, symlinks followed; `name` is what a copy is called.

    `include`, a pattern relative to it, is what `--parents` wants of it; "" is everything.
    """

    path: str
    name: str
    entry: Entry
    include: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """Something at or below a source. Directories that are not `included` matter when something in them is."""

    relative: str  # "" is the source itself
    entry: Entry
    included: bool


def find(tree: Tree, selection: Selection, location: Location | None, place: str) -> Iterator[Source]:
    """The sources in the order written, wildcards expanded.

    Raises DockerfileError for a path without wildcards that does not exist; `place` is the tree's name in it.
    A malformed pattern of `--exclude` or `--parents` raises PatternError from `walk`.
    """
    for written in selection.sources:
        path, include = _pivot(written) if selection.parents else (written, "")
        path = normalise(path)
        if include and not wildcard.contains_wildcards(f"{path}/{include}"):
            required = f"{path}/{include}" if path else include
            if tree.entry(_follow(tree, required, location)) is None:
                raise missing(tree, required, location, place)
        literal, pattern = wildcard.split(path)
        if pattern:
            base = _follow(tree, literal, location)
            if tree.entry(base) is None:
                raise missing(tree, literal, location, place)
            matches = list(wildcard.expand(tree, base, pattern))
        else:
            matches = [path]
        for match in matches:
            followed = _follow(tree, match, location)
            entry = tree.entry(followed)
            if entry is None:
                raise missing(tree, match, location, place)
            yield Source(followed, match.rpartition("/")[2], entry, include)


def _follow(tree: Tree, path: str, location: Location | None) -> str:
    try:
        return resolve(tree, path)
    except ImageError as error:  # a loop of symlinks
        raise DockerfileError(f"/{error.message}", error.hint, location=location) from error


def _pivot(written: str) -> tuple[str, str]:
    """Split a source of `--parents` into the directory to start from and the pattern below it."""
    directory, found, pattern = written.partition("/./")
    return (directory, normalise(pattern)) if found else ("", normalise(written))


def walk(tree: Tree, source: Source, exclude: tuple[str, ...]) -> Iterator[Found]:
    """The source itself and what is below it, directories before what is in them, names sorted by bytes."""
    if source.entry.type is not FileType.DIRECTORY:
        yield Found("", source.entry, True)
        return
    filtered = _Filter(source.include, exclude) if source.include or exclude else None
    pending: list[tuple[Found, _State]] = [(Found("", source.entry, True), _State())]
    while pending:
        found, state = pending.pop()
        yield found
        if found.entry.type is not FileType.DIRECTORY:
            continue
        below = []
        for entry in children(tree, found.entry.path):
            name = entry.path.rpartition("/")[2]
            relative = f"{found.relative}/{name}" if found.relative else name
            if filtered is None:
                below.append((Found(relative, entry, True), state))
            else:
                included, inner = filtered.match(relative, state)
                if included or (entry.type is FileType.DIRECTORY and filtered.may_include_below(relative, inner)):
                    below.append((Found(relative, entry, included), inner))
        pending.extend(reversed(below))


@dataclass(frozen=True, slots=True)
class _State:
    """What the patterns say about a directory: it holds for what is below unless a later pattern differs.

    `include` is "excluded" where the pattern of `--parents` matches: both lists are read by the same rules.
    """

    include: Verdict = PatternMatcher.NOTHING
    exclude: Verdict = PatternMatcher.NOTHING


class _Filter:
    def __init__(self, include: str, exclude: tuple[str, ...]) -> None:
        self._include = PatternMatcher([include]) if include else None
        self._exclude = PatternMatcher(exclude)
        parts = include.split("/") if include else []
        self._prefix = list(itertools.takewhile(lambda part: not _SPECIAL.search(part), parts))

    def match(self, relative: str, parent: _State) -> tuple[bool, _State]:
        """Whether the path is copied, and the state for what is below it."""
        include = parent.include if self._include is None else self._include.match(relative, parent.include)
        exclude = self._exclude.match(relative, parent.exclude)
        included = (self._include is None or include.excluded) and not exclude.excluded
        return included, _State(include, exclude)

    def may_include_below(self, relative: str, state: _State) -> bool:
        """Whether anything below directory `relative`, which is not copied itself, may be."""
        if self._exclude.prunes(relative, state.exclude):
            return False
        return all(mine == wanted for mine, wanted in zip(relative.split("/"), self._prefix))


def missing(tree: Tree, path: str, location: Location | None, place: str) -> DockerfileError:
    """The error for a source that is not in `tree`, with what was probably meant."""
    return DockerfileError(f"/{path} does not exist in {place}", _missing_hint(tree, path), location=location)


def _missing_hint(tree: Tree, path: str) -> str:
    if isinstance(tree, ContextTree) and (pattern := tree.ignored_by(path)):
        return f"it is there, but pattern {pattern!r} of {tree.ignore_file} excludes it"
    entry = tree.entry(path)
    if entry is not None and entry.type is FileType.SYMLINK:
        return f"it is a symbolic link to {entry.target}, which leads nowhere in there"
    parent, _, name = path.rpartition("/")
    while parent and tree.entry(resolve(tree, parent)) is None:
        parent, _, name = parent.rpartition("/")
    names = tree.names(resolve(tree, parent))
    near = difflib.get_close_matches(name, names, n=3) or [other for other in names if other.lower() == name.lower()]
    found = [f"{parent}/{other}" if parent else other for other in near]
    if found:
        return f"did you mean {' or '.join(found)}?"
    return f"there is no {name} in /{parent}"
