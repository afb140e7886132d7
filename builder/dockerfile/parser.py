"""The tree between text and typed instructions: a name, flags and arguments cut by the instruction's grammar."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace

# Only `structure` is used, on text that the lexer normalised. Its variable expansion, label, env and parent-image
# properties follow other rules than BuildKit; `cache_content` and paths read text differently.
from dockerfile_parse import DockerfileParser

from builder.dockerfile.arguments import GRAMMARS, json_array
from builder.dockerfile.flags import split_flags
from builder.dockerfile.instructions import Heredoc
from builder.dockerfile.lexer import Line, Lines, read_lines
from builder.dockerfile.whitespace import SEPARATOR, strip
from builder.errors import DockerfileError, Location

ONBUILD = "ONBUILD"
_HEREDOC_INSTRUCTIONS = frozenset({"ADD", "COPY", "RUN"})
_SENTINEL = "\0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One instruction, not yet checked.

    `name` is as written, `code` the joined line. `arguments` of ENV and LABEL come in threes (key, value,
    delimiter). `trigger` is the instruction behind ONBUILD.
    """

    name: str
    code: str
    location: Location
    flags: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    is_json: bool = False
    comments: tuple[str, ...] = ()
    heredocs: tuple[Heredoc, ...] = ()
    trigger: Node | None = None
    empty_continuation: bool = False

    @property
    def keyword(self) -> str:
        """The name as instructions are listed, in capitals; case folding is for ASCII only."""
        return _keyword(self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    path: str
    nodes: tuple[Node, ...]
    lines: Lines


def _keyword(name: str) -> str:
    return name.upper() if name.isascii() else name


def parse_tree(data: bytes, path: str) -> Tree:
    """Cut `data` into instructions. Raises DockerfileError where BuildKit's parser does."""
    lines = read_lines(data, path, takes_heredocs)
    if not lines.lines:
        raise DockerfileError(
            "file with no instructions" if data else "the Dockerfile cannot be empty",
            "a Dockerfile begins with FROM (or ARG)",
            location=Location(path, 1, 1),
        )
    values = _split_instructions(lines.lines)
    nodes = tuple(
        _node(name, value, line, path, lines.escape) for line, (name, value) in zip(lines.lines, values, strict=True)
    )
    return Tree(path=path, nodes=nodes, lines=lines)


def takes_heredocs(text: str, escape: str) -> bool:
    """Whether the instruction `text` may have heredocs: RUN, COPY and ADD not in JSON form, also behind ONBUILD."""
    name, rest = _split_name(text)
    _, arguments = split_flags(rest, escape)
    arguments = strip(arguments)
    if _keyword(name) == ONBUILD:
        inner, _ = _split_name(arguments)
        return _keyword(inner) != ONBUILD and takes_heredocs(arguments, escape)
    return _keyword(name) in _HEREDOC_INSTRUCTIONS and not _is_json(arguments)


def _is_json(text: str) -> bool:
    try:
        return json_array(text) is not None
    except DockerfileError:
        return True  # said again, with its place, when the arguments are cut


def _split_name(text: str) -> tuple[str, str]:
    name, *rest = SEPARATOR.split(strip(text), maxsplit=1)
    return name, rest[0] if rest else ""


def _split_instructions(lines: tuple[Line, ...]) -> list[tuple[str, str]]:
    """The name and the value of every logical line, split by dockerfile-parse.

    It is given one physical line for each, in which nothing is left that it would take for a comment, a directive,
    a continuation or a heredoc: the value stands between two sentinels, and a name that it could not read as one
    word is replaced (no instruction has such a name). Anything but one row for each line, in order and with both
    sentinels, would be a bug.
    """
    names: list[str] = []
    normalised: list[str] = []
    for line in lines:
        name, rest = _split_name(line.text)
        names.append(name)
        normalised.append(f"{_readable(name)} {_SENTINEL}{rest}{_SENTINEL}\n")
    # newline="\n": a carriage return inside a line is data.
    rows = DockerfileParser(fileobj=io.StringIO("".join(normalised), newline="\n")).structure
    assert len(rows) == len(lines), "dockerfile-parse found other instructions than the lexer"
    result = []
    for name, row in zip(names, rows, strict=True):
        value = row["value"]
        assert row["instruction"] == _readable(name).upper(), "dockerfile-parse read another name"
        assert len(value) >= 2 and value[0] == value[-1] == _SENTINEL, "dockerfile-parse cut a value"
        result.append((name, value[1:-1]))
    return result


def _readable(name: str) -> str:
    """`name` without what dockerfile-parse takes for white space, and never empty or a comment."""
    return "".join("?" if char.isspace() else char for char in name).replace("#", "?") or "?"


def _node(name: str, value: str, line: Line, path: str, escape: str) -> Node:
    location = Location(path, line.start, line.end)
    try:
        node = _cut(name, value, line.text, location, escape)
    except DockerfileError as error:
        raise DockerfileError(error.message, error.hint, location=location) from None
    return replace(node, comments=line.comments, heredocs=line.heredocs, empty_continuation=line.empty_continuation)


def _cut(name: str, value: str, code: str, location: Location, escape: str, *, nested: int = 0) -> Node:
    """Flags and arguments of one instruction, which is behind `nested` ONBUILDs."""
    flags, rest = split_flags(value, escape)
    rest = strip(rest)
    instruction = _keyword(name)
    node = Node(name=name, code=code, location=location, flags=flags)
    if instruction == ONBUILD:
        # A trigger of a trigger is refused later; deeper nesting is not cut, so that it cannot exhaust the stack.
        if not rest or nested > 1:
            return node
        inner_name, inner_value = _split_name(rest)
        return replace(node, trigger=_cut(inner_name, inner_value, rest, location, escape, nested=nested + 1))
    grammar = GRAMMARS.get(instruction)
    if grammar is None:
        return node
    arguments, is_json = grammar(rest, escape, instruction)
    return replace(node, arguments=arguments, is_json=is_json)
