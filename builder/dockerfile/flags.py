"""Flags: the leading words of an instruction that start with `--`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from builder.dockerfile.suggestion import did_you_mean
from builder.dockerfile.whitespace import is_space
from builder.errors import DockerfileError


class Kind(Enum):
    TEXT = "text"  # --name=value, once
    TEXTS = "texts"  # --name=value, as often as wanted
    TRUTH = "truth"  # --name or --name=true|false, once


@dataclass(frozen=True, slots=True)
class Flags:
    """The values given, by name; a flag that was not given is absent from its mapping."""

    texts: Mapping[str, tuple[str, ...]]
    truths: Mapping[str, bool]

    def text(self, name: str, default: str = "") -> str:
        return self.texts.get(name, (default,))[0]

    def all(self, name: str) -> tuple[str, ...]:
        return self.texts.get(name, ())

    def truth(self, name: str) -> bool | None:
        return self.truths.get(name)


def split_flags(text: str, escape: str) -> tuple[tuple[str, ...], str]:
    """Take the flags off the front of `text`; returns them, unquoted, and the rest.

    Quotes group and disappear; the escape character disappears and keeps what follows it. A bare `--` ends the
    flags and is dropped.
    """
    flags: list[str] = []
    at = 0
    while True:
        while at < len(text) and is_space(text[at]):
            at += 1
        if not text.startswith("--", at):
            return tuple(flags), text[at:]
        word, at = _read_word(text, at, escape)
        if word == "--":
            return tuple(flags), text[at:]
        flags.append(word)


def _read_word(text: str, at: int, escape: str) -> tuple[str, int]:
    """The word at `at`, unquoted, and where it ends."""
    chars: list[str] = []
    quote = ""
    while at < len(text):
        char = text[at]
        if not quote and is_space(char):
            break
        if char == escape:
            at += 1
            chars.append(text[at : at + 1])
        elif char == quote:
            quote = ""
        elif not quote and char in "'\"":
            quote = char
        else:
            chars.append(char)
        at += 1
    return "".join(chars), at


def parse_flags(words: tuple[str, ...], known: Mapping[str, Kind]) -> Flags:
    """Check `words` against the flags an instruction has.

    Raises DockerfileError (without location) for a flag that is unknown, repeated, or has a wrong value.
    """
    texts: dict[str, tuple[str, ...]] = {}
    truths: dict[str, bool] = {}
    for word in words:
        flag, has_value, value = word.partition("=")
        name = flag[2:]
        kind = known.get(name)
        if kind is None:
            raise DockerfileError(f"unknown flag: {flag}", did_you_mean(name, known) or _known(known))
        if kind is not Kind.TEXTS and (name in texts or name in truths):
            raise DockerfileError(f"duplicate flag specified: {flag}", "give it once")
        if kind is Kind.TRUTH:
            truths[name] = _truth(flag, bool(has_value), value)
        elif not has_value:
            raise DockerfileError(f"missing a value on flag: {flag}", f"write {flag}=VALUE")
        else:
            texts[name] = (*texts.get(name, ()), value)
    return Flags(texts, truths)


def _truth(flag: str, has_value: bool, value: str) -> bool:
    if has_value and not value:
        raise DockerfileError(f"missing a value on flag: {flag}", f"write {flag} or {flag}=true or {flag}=false")
    if value.lower() not in ("", "true", "false"):
        raise DockerfileError(f"expecting boolean value for flag {flag}, not: {value}", "true or false")
    return value.lower() != "false"


def _known(known: Mapping[str, Kind]) -> str:
    if not known:
        return "this instruction has no flags"
    return "known here: " + ", ".join(f"--{name}" for name in sorted(known))
