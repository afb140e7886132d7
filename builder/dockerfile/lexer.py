"""From bytes to logical lines: what has to happen before a file can be split into instructions.

A logical line is one instruction with its continuations joined, its comments taken out and its heredoc bodies set
aside.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from builder.dockerfile.directives import read_directives
from builder.dockerfile.heredoc import heredocs_of_line
from builder.dockerfile.instructions import Heredoc
from builder.dockerfile.whitespace import lstrip, strip
from builder.dockerfile.words import WordError
from builder.errors import DockerfileError, Location

MAX_LINE = 65_535
"""Bytes in a physical line, its newline not counted (the limit of BuildKit's scanner)."""

_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Line:
    """A logical line. `end` counts heredoc bodies and terminators.

    `comments` are the texts of the comment lines above. `empty_continuation` says that a blank line was found
    inside; such a line is dropped.
    """

    text: str
    start: int
    end: int
    comments: tuple[str, ...] = ()
    heredocs: tuple[Heredoc, ...] = ()
    empty_continuation: bool = False


@dataclass(frozen=True, slots=True)
class Lines:
    lines: tuple[Line, ...]
    escape: str


def read_lines(data: bytes, path: str, takes_heredocs: Callable[[str, str], bool]) -> Lines:
    """Cut `data` into logical lines; bytes that are not UTF-8 become surrogate escapes.

    `takes_heredocs(text, escape)` says whether an instruction may have heredocs. Raises DockerfileError for a line
    that is too long, a wrong or repeated directive, and an unterminated heredoc.
    """
    physical = _physical_lines(data, path)
    directives = read_directives(map(_without_end, physical), path)
    escape = next((directive.value for directive in directives if directive.name == "escape"), "\\")
    reader = _LineReader(physical, path, escape, takes_heredocs, first=len(directives))
    return Lines(tuple(reader), escape)


def _physical_lines(data: bytes, path: str) -> list[str]:
    """Lines with their ends; only a line feed ends a line."""
    lines = data.removeprefix(_BOM).split(b"\n")
    for number, line in enumerate(lines, 1):
        if len(line) > MAX_LINE:
            raise DockerfileError(
                f"dockerfile line greater than max allowed size of {MAX_LINE}",
                "end lines with a continuation, or keep the text in a file and COPY it",
                location=Location(path, number, number),
            )
    decoded = [line.decode("utf-8", "surrogateescape") + "\n" for line in lines[:-1]]
    if lines[-1]:
        decoded.append(lines[-1].decode("utf-8", "surrogateescape"))
    return decoded


def _without_end(line: str) -> str:
    return line.rstrip("\r\n")


def _comment(line: str) -> str | None:
    """The text of a comment line, None for any other line."""
    line = lstrip(line)
    return strip(line[1:]) if line.startswith("#") else None


class _LineReader:
    """Iterates over the logical lines of a file."""

    def __init__(
        self,
        lines: list[str],
        path: str,
        escape: str,
        takes_heredocs: Callable[[str, str], bool],
        first: int,
    ) -> None:
        self._lines = lines
        self._path = path
        self._escape = escape
        self._takes_heredocs = takes_heredocs
        # A doubled escape character at the end of a line is data, not a continuation.
        self._continuation = re.compile(rf"(?:(?<=[^{re.escape(escape)}])|\A){re.escape(escape)}[ \t]*\Z")
        self._at = first  # index of the next physical line, which is also the number of the last one read

    def __iter__(self) -> Iterator[Line]:
        comments: list[str] = []
        while self._at < len(self._lines):
            line = _without_end(self._next())
            comment = _comment(line)
            if comment is not None:
                if comment:
                    comments.append(comment)
                else:
                    comments = []
                continue
            start = self._at
            text, continues = self._without_continuation(lstrip(line))
            if not text and not continues:
                continue
            logical = Line(text, start, start, tuple(comments))
            yield self._with_heredocs(self._continued(logical) if continues else logical)
            comments = []

    def _next(self) -> str:
        self._at += 1
        return self._lines[self._at - 1]

    def _without_continuation(self, line: str) -> tuple[str, bool]:
        match = self._continuation.search(line)
        return (line[: match.start()], True) if match else (line, False)

    def _continued(self, line: Line) -> Line:
        """`line` joined with the lines that continue it; comments and blank lines between them are dropped."""
        parts = [line.text]
        empty, continues = False, True
        while continues and self._at < len(self._lines):
            following = _without_end(self._next())
            if _comment(following) is not None:
                continue
            if not lstrip(following):
                empty = True
                continue
            part, continues = self._without_continuation(following)
            parts.append(part)
        return replace(line, text="".join(parts), end=self._at, empty_continuation=empty)

    def _with_heredocs(self, line: Line) -> Line:
        if "<<" not in line.text or not self._takes_heredocs(line.text, self._escape):
            return line
        try:
            found = heredocs_of_line(line.text)
        except WordError as error:
            location = Location(self._path, line.start, line.end)
            raise DockerfileError(error.message, error.hint, location=location) from None
        heredocs = tuple(replace(heredoc, content=self._body(heredoc, line.start)) for heredoc in found)
        return replace(line, heredocs=heredocs, end=self._at)

    def _body(self, heredoc: Heredoc, start: int) -> str:
        """The raw lines up to the terminator of `heredoc`."""
        body: list[str] = []
        while self._at < len(self._lines):
            line = self._next()
            end = _without_end(line)
            if (end.lstrip("\t") if heredoc.chomp else end) == heredoc.name:
                return "".join(body)
            body.append(line)
        raise DockerfileError(
            f"unterminated heredoc: {heredoc.name}",
            f"end it with a line that is just {heredoc.name}",
            location=Location(self._path, start, self._at),
        )
