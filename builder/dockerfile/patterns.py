"""Ignore patterns: .dockerignore, and `--exclude` of COPY and ADD.

The last pattern that matches a path, or one of its parent directories, decides; `!` in front of it means "not
excluded". `*` and `?` stop at a slash, `**` stands for any number of directories, `[...]` for one character. The
language and its quirks are those of moby/patternmatcher, but `|`, `{`, `}` and `^` stand for themselves.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable
from dataclasses import dataclass

from builder.dockerfile.paths import clean
from builder.dockerfile.whitespace import strip
from builder.errors import DockerfileError

_WILDCARD = re.compile(r"[*?\[\\]")


class PatternError(DockerfileError):
    """A pattern is malformed."""

    def __init__(self, pattern: str, problem: str) -> None:
        super().__init__(f"ignore pattern {pattern!r}: {problem}", r"a literal [ or \ is written \[ or \\")


def read_ignore_file(data: bytes) -> tuple[str, ...]:
    """The patterns of a .dockerignore file: comments, blank lines and leading slashes taken away, paths cleaned."""
    text = data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
    patterns: list[str] = []
    for line in text.split("\n"):
        pattern = "" if line.startswith("#") else strip(line)
        if not pattern:
            continue
        negated = pattern.startswith("!")
        if negated:
            pattern = strip(pattern[1:])
        if pattern:
            pattern = clean(pattern)
            if len(pattern) > 1:
                pattern = pattern.removeprefix("/")
        patterns.append("!" + pattern if negated else pattern)
    return tuple(patterns)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the patterns say about a path. `matched` has bit n set if pattern n matches it or a parent of it."""

    excluded: bool
    matched: int


@dataclass(frozen=True, slots=True)
class _Pattern:
    negated: bool
    text: str
    regexp: re.Pattern[str] | None  # None: `text` is the only path that matches

    def matches(self, path: str) -> bool:
        return path == self.text if self.regexp is None else self.regexp.fullmatch(path) is not None


class PatternMatcher:
    """A list of patterns, compiled. Paths are relative, slash-separated and clean."""

    NOTHING = Verdict(excluded=False, matched=0)

    def __init__(self, patterns: Iterable[str]) -> None:
        """Raises PatternError for a malformed pattern."""
        self._patterns = tuple(_compile(pattern) for pattern in map(strip, patterns) if pattern)
        # One question for the many paths that no pattern speaks of.
        self._exact = frozenset(pattern.text for pattern in self._patterns if pattern.regexp is None)
        alternatives = [f"(?:{pattern.regexp.pattern})" for pattern in self._patterns if pattern.regexp]
        self._any = re.compile("|".join(alternatives), re.DOTALL) if alternatives else None
        self._exceptions = tuple(_Reach.of(pattern.text) for pattern in self._patterns if pattern.negated)

    def __bool__(self) -> bool:
        return bool(self._patterns)

    def match(self, path: str, parent: Verdict = NOTHING) -> Verdict:
        """The verdict on `path`, whose directory has the verdict `parent` (`NOTHING` at the top).

        Walking a tree with this costs one look at each path, whatever its depth.
        """
        if path not in self._exact and (self._any is None or not self._any.fullmatch(path)):
            return parent
        excluded, matched = False, 0
        for index, pattern in enumerate(self._patterns):
            bit = 1 << index
            # A pattern that would change nothing is not looked at, and its bit stays clear for the paths below.
            if parent.matched & bit or (pattern.negated == excluded and pattern.matches(path)):
                matched |= bit
                excluded = not pattern.negated
        return Verdict(excluded, matched)

    def excludes(self, path: str) -> bool:
        """The verdict on a single path, its parents looked at for every pattern."""
        parents = [path]
        while (path := posixpath.dirname(path)) not in ("", "/"):
            parents.append(path)
        excluded = False
        for pattern in self._patterns:
            if pattern.negated == excluded and any(map(pattern.matches, parents)):
                excluded = not pattern.negated
        return excluded

    def prunes(self, directory: str, verdict: Verdict) -> bool:
        """True if everything below `directory`, which has `verdict`, is excluded too, so need not be walked."""
        return verdict.excluded and not any(exception.below(directory) for exception in self._exceptions)


@dataclass(frozen=True, slots=True)
class _Reach:
    """Where a `!` pattern can match: below `fixed` directories, at `depth` names (None: at any depth)."""

    fixed: tuple[str, ...]
    depth: int | None

    @classmethod
    def of(cls, pattern: str) -> _Reach:
        names = pattern.split("/")
        fixed = []
        for name in names:
            if _WILDCARD.search(name):
                break
            fixed.append(name)
        # A class or an escape can stand for a slash.
        any_depth = "**" in pattern or "[" in pattern or "\\" in pattern
        return cls(tuple(fixed), None if any_depth else len(names))

    def below(self, directory: str) -> bool:
        names = directory.split("/")
        if self.depth is not None and self.depth <= len(names):
            return False
        return all(left == right for left, right in zip(self.fixed, names))


def _compile(pattern: str) -> _Pattern:
    cleaned = clean(pattern)
    negated = cleaned.startswith("!")
    text = cleaned[1:] if negated else cleaned
    if not text:
        raise PatternError(pattern, "illegal exclusion pattern")
    regexp = _regexp(pattern, text)
    return _Pattern(negated, text, None if regexp is None else re.compile(regexp, re.DOTALL))


def _regexp(pattern: str, text: str) -> str | None:
    """`text` as a regular expression for a whole path, None if it has nothing special."""
    at, parts, special = 0, [], False
    while at < len(text):
        char = text[at]
        if text.startswith("**", at):
            at += 2
            at += text.startswith("/", at)
            rest = text[at:]
            if not rest:
                parts.append(".*")
            elif not parts and not _WILDCARD.search(rest):
                # `**x` is any path that ends in x; `**/x` any that ends in /x, or x itself.
                parts.append("(?:.*/)?" if text[at - 1] == "/" else ".*")
            else:
                parts.append("(?:.*/)?")
            special = True
            continue
        if char == "[":
            end = _class_end(pattern, text, at)
            parts.append(_class(pattern, text[at + 1 : end]))
            at, special = end, True
        elif char == "\\":
            at += 1
            if at == len(text):
                raise PatternError(pattern, "syntax error in pattern")
            parts.append(re.escape(text[at]))
            special = True
        elif char in "*?":
            parts.append("[^/]*" if char == "*" else "[^/]")
            special = True
        else:
            parts.append(re.escape(char))
        at += 1
    return "".join(parts) if special else None


def _class_end(pattern: str, text: str, at: int) -> int:
    """Where the class that begins at `at` has its closing bracket."""
    end = at + 1 + text.startswith("^", at + 1)
    first = end
    while end < len(text):
        if text[end] == "]" and end > first:
            return end
        end += 2 if text[end] == "\\" else 1
    raise PatternError(pattern, "syntax error in pattern")


def _class(pattern: str, inner: str) -> str:
    """A class's inside as a regular expression. Raises PatternError for a loose `-` or a backward range."""
    negated = inner.startswith("^")
    characters = re.findall(r"\\.|.", inner[negated:], re.DOTALL)
    parts = []
    at = 0
    while at < len(characters):
        low = _member(pattern, characters, at)
        at += 1
        if characters[at : at + 1] == ["-"]:
            high = _member(pattern, characters, at + 1)
            if low > high:
                raise PatternError(pattern, f"syntax error in pattern: range {low}-{high} runs backwards")
            parts.append(f"{re.escape(low)}-{re.escape(high)}")
            at += 2
        else:
            parts.append(re.escape(low))
    return f"[{'^' if negated else ''}{''.join(parts)}]"


def _member(pattern: str, characters: list[str], at: int) -> str:
    char = characters[at] if at < len(characters) else "-"
    if char in ("-", "]"):
        raise PatternError(pattern, "syntax error in pattern")
    return char[-1]
