"""Wildcards in the sources of COPY and ADD: Go's `filepath.Match` over the whole path below the first of them.

`*` and `?` stop at `/`, `[...]` is a class, a backslash takes the next character literally. There is no `**`
and no case without regard to it; a malformed pattern matches nothing, as in BuildKit.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from builder.rootfs.entry import FileType
from builder.rootfs.tree import Tree


def contains_wildcards(text: str) -> bool:
    """Whether `text` has a `*`, `?` or `[` that no backslash precedes."""
    position = 0
    while position < len(text):
        if text[position] == "\\":
            position += 1
        elif text[position] in "*?[":
            return True
        position += 1
    return False


def split(path: str) -> tuple[str, str]:
    """Cut a clean relative path before its first component with a wildcard: ("a/b", "*/c") for "a/b/*/c".

    The literal part keeps its backslashes: they escape nothing there.
    """
    parts = path.split("/")
    for index, part in enumerate(parts):
        if contains_wildcards(part):
            return "/".join(parts[:index]), "/".join(parts[index:])
    return path, ""


def translate(pattern: str) -> re.Pattern[str] | None:
    """A regular expression for `fullmatch` that accepts what `filepath.Match` accepts; None if it is malformed."""
    out: list[str] = []
    position = 0
    while position < len(pattern):
        char = pattern[position]
        position += 1
        if char == "*":
            out.append("[^/]*")
        elif char == "?":
            out.append("[^/]")
        elif char == "[":
            found = _character_class(pattern, position)
            if found is None:
                return None
            text, position = found
            out.append(text)
        elif char == "\\":
            if position == len(pattern):
                return None
            out.append(re.escape(pattern[position]))
            position += 1
        else:
            out.append(re.escape(char))
    return re.compile("".join(out), re.DOTALL)


def _character_class(pattern: str, position: int) -> tuple[str, int] | None:
    """The class whose `[` is just before `position`, as a regular expression, and where it ends."""
    negated = pattern.startswith("^", position)
    position += negated
    ranges: list[str] = []
    empty = True
    while not (pattern.startswith("]", position) and not empty):
        empty = False
        first = _class_member(pattern, position)
        if first is None:
            return None
        low, position = first
        high = low
        if pattern.startswith("-", position):
            last = _class_member(pattern, position + 1)
            if last is None:
                return None
            high, position = last
        if low <= high:  # a reversed range is legal and empty
            ranges.append(f"{re.escape(low)}-{re.escape(high)}")
    position += 1
    if not ranges:
        return ("[\\s\\S]" if negated else "(?!)"), position
    return f"[{'^' if negated else ''}{''.join(ranges)}]", position


def _class_member(pattern: str, position: int) -> tuple[str, int] | None:
    """One possibly escaped character of a class, and the position after it; None where there can be none."""
    if position >= len(pattern) or pattern[position] in "-]":
        return None
    if pattern[position] == "\\":
        position += 1
        if position >= len(pattern):
            return None
    # Something has to follow: at the latest the class's closing bracket.
    return (pattern[position], position + 1) if position + 1 < len(pattern) else None


def expand(tree: Tree, base: str, pattern: str) -> Iterator[str]:
    """Paths below directory `base` that `pattern` matches, in walking order; nothing below a match is looked at.

    Symlinks are not followed.
    """
    if translate(pattern) is None:
        return
    if "[" in pattern:  # a class may match a slash, so components cannot be matched one by one
        yield from _expand_whole(tree, base, "", re.compile(_source(pattern), re.DOTALL))
    else:
        yield from _expand_parts(tree, base, [re.compile(_source(part), re.DOTALL) for part in pattern.split("/")])


def _source(pattern: str) -> str:
    compiled = translate(pattern)
    return compiled.pattern if compiled is not None else "(?!)"


def _expand_parts(tree: Tree, base: str, parts: list[re.Pattern[str]]) -> Iterator[str]:
    first, rest = parts[0], parts[1:]
    for name in tree.names(base):
        if first.fullmatch(name):
            path = f"{base}/{name}" if base else name
            if rest:
                yield from _expand_parts(tree, path, rest)
            else:
                yield path


def _expand_whole(tree: Tree, base: str, below: str, pattern: re.Pattern[str]) -> Iterator[str]:
    for name in tree.names(base):
        path = f"{base}/{name}" if base else name
        relative = f"{below}/{name}" if below else name
        if pattern.fullmatch(relative):
            yield path
            continue
        entry = tree.entry(path)
        if entry is not None and entry.type is FileType.DIRECTORY:
            yield from _expand_whole(tree, path, relative, pattern)
