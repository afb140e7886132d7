"""Heredocs: finding `<<NAME` in a line, and what to strip from a body."""

from __future__ import annotations

import re

from builder.dockerfile.instructions import Heredoc
from builder.dockerfile.words import Lexer, WordError

_WORD = re.compile(r"(\d*)<<(-?)\s*([^<]*)", re.ASCII)
_MAX_FD_DIGITS = 9
_NO_VARIABLES: dict[str, str] = {}

# Heredoc words follow the shell of RUN, not the Dockerfile: the escape character is always a backslash.
_LINE = Lexer(raw_quotes=True, raw_escapes=True, skip_unset=True)
_NAME = Lexer(skip_unset=True)


def heredoc_of_word(word: str) -> Heredoc | None:
    """`word` as a heredoc without content, None when it is not one.

    Raises WordError for an unbalanced quote and a file descriptor that cannot be one.
    """
    match = _WORD.fullmatch(word)
    if not match or not match[3]:
        return None
    names = _NAME.process(match[3], _NO_VARIABLES).words
    if len(names) != 1:
        return None
    if len(match[1]) > _MAX_FD_DIGITS:
        raise WordError(f"{word}: file descriptor out of range")
    return Heredoc(
        name=names[0],
        content="",
        expand=not _has_quotes(match[3]),
        chomp=match[2] == "-",
        fd=int(match[1] or 0),
    )


def _has_quotes(name: str) -> bool:
    """True if any part of `name` is quoted; an escaped quote is not one."""
    return re.sub(r"\\.", "", name, flags=re.DOTALL) != re.sub(r"\\.|['\"]", "", name, flags=re.DOTALL)


def heredocs_of_line(line: str) -> tuple[Heredoc, ...]:
    """The heredocs that `line` begins, in order; none when its quotes do not balance.

    Raises WordError for a word that only looks like one.
    """
    if "<<" not in line:
        return ()
    try:
        words = _LINE.process(line, _NO_VARIABLES).words
    except WordError:
        return ()
    return tuple(heredoc for heredoc in map(heredoc_of_word, words) if heredoc)


def without_leading_tabs(content: str) -> str:
    """The content of `<<-NAME` as it is used."""
    return re.sub(r"^\t+", "", content, flags=re.MULTILINE)
