"""Words and variables: quotes, escapes, `$x` and `${x...}` as instructions expand them.

A small part of the POSIX shell's word expansion, with BuildKit's choices: no command substitution, no `${x=w}`, no
brackets in patterns, and pattern replacement as in bash.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from builder.dockerfile.shell_pattern import InvalidPattern, remove_prefix, remove_suffix, replace
from builder.dockerfile.whitespace import is_space
from builder.errors import DockerfileError

_DEEPEST = 64  # `${a:-${b:-...}}`: each level costs a few frames of Python's stack
_SPECIAL_PARAMETERS = frozenset("@*#?-$!0")


class WordError(DockerfileError):
    """A word cannot be expanded. Carries no location: the caller knows which instruction it belongs to."""


@dataclass(frozen=True, slots=True)
class Expansion:
    """`text` is the word expanded; `words` the same, split at unquoted white space (after expansion).

    `matched` and `unmatched` are the variables looked up, with and without a value in the environment.
    """

    text: str
    words: tuple[str, ...]
    matched: frozenset[str]
    unmatched: frozenset[str]


@dataclass(frozen=True, slots=True)
class Lexer:
    r"""How words are read.

    `escape` is the escape character. `raw_quotes` keeps quotes and `raw_escapes` keeps escape characters in the
    result; `skip_unset` leaves variables without a value as they were written; `quotes=False` takes quote
    characters as text (heredoc bodies).
    """

    escape: str = "\\"
    raw_quotes: bool = False
    raw_escapes: bool = False
    skip_unset: bool = False
    quotes: bool = True

    def process(self, text: str, env: Mapping[str, str]) -> Expansion:
        """Expand `text` with `env`. Raises WordError for unbalanced quotes and bad substitutions."""
        reader = _Reader(self, text, env)
        try:
            result = reader.read_until(None)
        except _SyntaxProblem as problem:
            raise WordError(f'cannot expand "{text}": {problem}') from None
        return Expansion(
            text=result.text,
            words=tuple(result.words),
            matched=frozenset(reader.matched),
            unmatched=frozenset(reader.unmatched),
        )

    def expand(self, text: str, env: Mapping[str, str]) -> str:
        """`process(text, env).text`."""
        return self.process(text, env).text

    def expand_to_words(self, text: str, env: Mapping[str, str]) -> tuple[str, ...]:
        """`process(text, env).words`."""
        return self.process(text, env).words


class _SyntaxProblem(Exception):
    """What is wrong with a word, in a few words."""


@dataclass(slots=True)
class _Result:
    """Text read so far, and the same split into words.

    Quoted and escaped characters belong to the current word whatever they are; others end it when they are space.
    """

    parts: list[str] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    _word: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(self.parts)

    def add(self, text: str) -> None:
        self.parts.append(text)
        for char in text:
            if is_space(char):
                self.end_word()
            else:
                self._word.append(char)

    def add_literal(self, text: str) -> None:
        self.parts.append(text)
        self._word.append(text)

    def end_word(self) -> None:
        word = "".join(self._word)
        if word:
            self.words.append(word)
            self._word.clear()


class _Reader:
    """Reads one text from left to right, once."""

    def __init__(self, lexer: Lexer, text: str, env: Mapping[str, str]) -> None:
        self._lexer = lexer
        self._text = text
        self._at = 0
        self._env = env
        self._raw_escapes = lexer.raw_escapes
        self._depth = 0
        self.matched: set[str] = set()
        self.unmatched: set[str] = set()

    def _peek(self) -> str:
        """The next character, "" at the end."""
        return self._text[self._at : self._at + 1]

    def _next(self) -> str:
        char = self._peek()
        self._at += 1
        return char

    def read_until(self, stop: str | None) -> _Result:
        """Read up to and including the unquoted character `stop`, or to the end when it is None."""
        result = _Result()
        while char := self._peek():
            if char == stop:
                self._next()
                result.end_word()
                return result
            if char == "$":
                result.add(self._dollar())
            elif char in ("'", '"') and self._lexer.quotes:
                result.add_literal(self._single_quoted() if char == "'" else self._double_quoted())
            elif char == "<":
                result.add_literal(self._redirection())
            elif char == self._lexer.escape:
                self._next()
                if self._raw_escapes:
                    result.add_literal(char)
                result.add_literal(self._next())
            else:
                result.add(self._next())
        if stop is not None:
            raise _SyntaxProblem(f"unexpected end of statement while looking for matching {stop}")
        result.end_word()
        return result

    def _read_operand(self, stop: str, missing: str, *, raw_escapes: bool) -> str:
        """The word inside `${...}` up to `stop`; `missing` is what to say when the text ends before."""
        if self._depth == _DEEPEST:
            raise _SyntaxProblem(f"substitutions are nested more than {_DEEPEST} deep")
        outer, self._raw_escapes = self._raw_escapes, raw_escapes
        self._depth += 1
        try:
            return self.read_until(stop).text
        except _SyntaxProblem:
            if self._peek() == "":
                raise _SyntaxProblem(missing) from None
            raise
        finally:
            self._raw_escapes = outer
            self._depth -= 1

    def _redirection(self) -> str:
        """`<<` with the blanks behind it: they belong to the word, so that `<< EOF` is one heredoc word."""
        start = self._at
        self._next()
        if self._peek() == "<":
            self._next()
            while self._peek() in (" ", "\t"):
                self._next()
        return self._text[start : self._at]

    def _single_quoted(self) -> str:
        end = self._text.find("'", self._at + 1)
        if end < 0:
            raise _SyntaxProblem("unexpected end of statement while looking for matching single-quote")
        start, self._at = self._at, end + 1
        return self._text[start : end + 1] if self._lexer.raw_quotes else self._text[start + 1 : end]

    def _double_quoted(self) -> str:
        result = [self._next()] if self._lexer.raw_quotes else []
        if not self._lexer.raw_quotes:
            self._next()
        escape = self._lexer.escape
        while char := self._peek():
            if char == "$":
                result.append(self._dollar())
                continue
            self._next()
            if char == '"':
                if self._lexer.raw_quotes:
                    result.append(char)
                return "".join(result)
            if char == escape:
                if self._raw_escapes:
                    result.append(char)
                following = self._peek()
                if following in ('"', "$", escape):  # everything else keeps its escape character
                    char = self._next()
                elif following == "":
                    continue
            result.append(char)
        raise _SyntaxProblem("unexpected end of statement while looking for matching double-quote")

    def _dollar(self) -> str:
        self._next()
        if self._peek() != "{":
            name = self._name()
            if not name:
                return "$"
            value = self._lookup(name)
            if value is None:
                return f"${name}" if self._lexer.skip_unset else ""
            return value
        self._next()
        following = self._peek()
        if following == "":
            raise _SyntaxProblem("syntax error: missing '}'")
        if following in ("{", "}", ":"):
            raise _SyntaxProblem("syntax error: bad substitution")
        return self._braced(self._name())

    def _braced(self, name: str) -> str:
        """The rest of `${name...}`."""
        operator = self._next()
        if operator == "}":
            value = self._lookup(name)
            if value is None:
                return f"${{{name}}}" if self._lexer.skip_unset else ""
            return value
        if operator == "/":
            return self._replaced(name)
        if operator == ":":
            operator += self._next()
        elif operator not in ("+", "-", "?", "#", "%"):
            raise _SyntaxProblem(f"unsupported modifier ({operator or 'end of text'}) in substitution")
        word = self._read_operand("}", "syntax error: missing '}'", raw_escapes=operator[-1] in "#%")
        value = self._lookup(name)
        if value is None and self._lexer.skip_unset:
            return f"${{{name}{operator}{word}}}"
        return self._modified(name, operator, word, value)

    def _modified(self, name: str, operator: str, word: str, value: str | None) -> str:
        """`${name<operator>word}`; `value` is None for an unset variable."""
        absent = value is None or (operator.startswith(":") and value == "")
        kind = operator[-1]
        if kind == "-":
            return word if value is None or absent else value
        if kind == "+":
            return "" if absent else word
        if kind == "?":
            if value is None or absent:
                state = "unset" if value is None else "empty"
                raise _SyntaxProblem(f"{name}: {word or f'is not allowed to be {state}'}")
            return value
        if operator not in ("#", "%"):
            raise _SyntaxProblem(f"unsupported modifier ({operator}) in substitution")
        longest = word.startswith(kind)
        pattern = word[1:] if longest else word
        remove = remove_prefix if kind == "#" else remove_suffix
        return self._with_pattern(pattern, lambda: remove(value or "", pattern, longest=longest))

    def _replaced(self, name: str) -> str:
        """The rest of `${name/pattern/replacement}`, behind the first slash."""
        everywhere = self._peek() == "/"
        if everywhere:
            self._next()
        pattern = self._read_operand("/", "syntax error: missing '/' in ${}", raw_escapes=True)
        replacement = self._read_operand("}", "syntax error: missing '}'", raw_escapes=True)
        value = self._lookup(name)
        if value is None and self._lexer.skip_unset:
            return f"${{{name}{'//' if everywhere else '/'}{pattern}/{replacement}}}"
        return self._with_pattern(pattern, lambda: replace(value or "", pattern, replacement, everywhere=everywhere))

    def _with_pattern(self, pattern: str, action: Callable[[], str]) -> str:
        try:
            return action()
        except InvalidPattern as problem:
            raise _SyntaxProblem(f"invalid pattern ({pattern}) in substitution: {problem}") from None

    def _name(self) -> str:
        """A variable's name: letters, digits and `_`; a run of digits; or one special parameter. "" if none."""
        first = self._peek()
        if first.isdecimal():
            return self._while(str.isdecimal)
        if first in _SPECIAL_PARAMETERS:
            return self._next()
        return self._while(lambda char: char.isalpha() or char.isdecimal() or char == "_")

    def _while(self, holds: Callable[[str], bool]) -> str:
        start = self._at
        while (char := self._peek()) and holds(char):
            self._at += 1
        return self._text[start : self._at]

    def _lookup(self, name: str) -> str | None:
        value = self._env.get(name)
        (self.unmatched if value is None else self.matched).add(name)
        return value


def environment(entries: Iterable[str]) -> dict[str, str]:
    """`NAME=value` entries as a mapping; the last of a name wins, an entry without `=` is empty."""
    result: dict[str, str] = {}
    for entry in entries:
        name, _, value = entry.partition("=")
        result[name] = value
    return result
