"""The command line, taken apart: pflag's grammar, which is kaniko's, and what pipelines need beside it.

pflag: `--flag=value` and `--flag value`; a bool takes a value only with `=`; `-f value`, `-f=value`, `-fvalue`,
`-xyz` for bools; `--` ends the flags; flags and positional arguments may alternate.

Beside it:
- `--flag=` (an empty value) is the flag not given, so that an empty parameter of a pipeline needs no shell to leave
  the flag out. A scalar flag falls back to its default, a list stays as it is.
- The plural form of a list takes zero or more values, up to the next argument that begins with `-`:
  `--build-args A=1 B=2 --labels --no-push`. With `=` it takes one value: a JSON array or object, or lines.
- `--args-json='["--label", "a=b"]'` stands for its members.
- After `--only-lists` come plural forms and their values and nothing else, each form once. A value that begins with
  `-` is an error there, so that whoever fills an array parameter of a pipeline cannot add a flag to its line.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

from builder.cli import grammar
from builder.cli.flag import Flag
from builder.cli.flags import flags_of
from builder.errors import UsageError

Value = str | bool | int | float | tuple[str, ...] | dict[str, str] | dict[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Arguments:
    """What the flags of one command say, environment included.

    `values` has an entry for every flag of the command, by name. `given` are the names that the command line or an
    environment variable set. `notices` are for the log, once.
    """

    command: str
    values: Mapping[str, Value] = field(repr=False)
    given: frozenset[str]
    positionals: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()
    help: bool = False

    def text(self, name: str) -> str:
        """The value of a string or choice flag."""
        return cast(str, self.values[name])

    def is_set(self, name: str) -> bool:
        """The value of a bool flag."""
        return cast(bool, self.values[name])

    def number(self, name: str) -> int:
        """The value of an int or size flag (bytes)."""
        return cast(int, self.values[name])

    def seconds(self, name: str) -> float:
        """The value of a duration flag."""
        return cast(float, self.values[name])

    def items(self, name: str) -> tuple[str, ...]:
        """The values of a list or comma-list flag, in the order given."""
        return cast("tuple[str, ...]", self.values[name])

    def mapping(self, name: str) -> dict[str, str]:
        """The value of a map flag."""
        return cast("dict[str, str]", self.values[name])

    def targets(self, name: str) -> dict[str, tuple[str, ...]]:
        """The value of a registry-map flag."""
        return cast("dict[str, tuple[str, ...]]", self.values[name])


def parse(command: str, argv: Sequence[str], env: Mapping[str, str], *, program: str = "") -> Arguments:
    """Take the arguments of `command` apart. Raises UsageError.

    `program` is how error messages call the command.
    """
    reader = _Reader(command, program or command)
    reader.read(argv)
    if not reader.help:
        reader.read_environment(env)
    flags = dict.fromkeys(flags_of(command).values())
    values = {flag.name: _value(flag, reader.texts.get(flag.name, [])) for flag in flags}
    if not reader.help:
        for flag in flags:
            reader.check_meaning(flag, values[flag.name])
    return Arguments(
        command, values, frozenset(reader.given), tuple(reader.positionals), tuple(reader.notices), reader.help
    )


def find_command(argv: Sequence[str], commands: Sequence[str], flags: Mapping[str, Flag]) -> int | None:
    """Where in `argv` the name of a subcommand stands: the first argument that is no flag and no flag's value."""
    shorts = {flag.short: flag for flag in flags.values() if flag.short}
    position = 0
    while position < len(argv):
        argument = argv[position]
        position += 1
        if argument == "--":
            return None
        if not argument.startswith("-") or argument == "-":
            return position - 1 if argument in commands else None
        if "=" in argument:
            continue
        if argument.startswith("--"):
            name = argument[2:]
            flag = flags.get(name)
            if flag is not None and name == flag.many:
                while position < len(argv) and not argv[position].startswith("-"):
                    position += 1
            elif flag is None or flag.kind != "bool":
                position += 1
        else:
            flag = shorts.get(argument[1:])
            if flag is not None and flag.kind != "bool":
                position += 1
    return None


class _Reader:
    """Collects each flag's texts, checked as they come so that an error names what was written."""

    def __init__(self, command: str, program: str) -> None:
        self.program = program
        self.flags = flags_of(command)
        self.shorts = {flag.short: flag for flag in self.flags.values() if flag.short}
        self.texts: dict[str, list[str]] = {}
        self.given: set[str] = set()
        self.positionals: list[str] = []
        self.notices: list[str] = []
        self.help = False

    def read(self, argv: Sequence[str]) -> None:
        rest = list(argv)
        while rest:
            argument = rest.pop(0)
            if argument == "--":
                self.positionals += rest
                return
            if argument == "--only-lists":
                self._lists(rest)
                return
            if argument.startswith("--"):
                self._long(argument, rest)
            elif argument.startswith("-") and argument != "-":
                self._short(argument, rest)
            else:
                self.positionals.append(argument)

    def _long(self, argument: str, rest: list[str]) -> None:
        name, equals, value = argument[2:].partition("=")
        if not name or name.startswith("-"):
            raise UsageError(f"{argument}: not a flag", f"see `{self.program} --help`")
        if name == "help" and name not in self.flags:
            self.help = True
            return
        flag = self.flags.get(name)
        if flag is None:
            raise UsageError(f"unknown flag: --{name}", _did_you_mean(name, self.flags, self.program))
        if name == flag.many:
            values = list(_many(flag, argument, value)) if equals else _take_values(rest)
            for each in values:
                self._set(flag, each, f"--{name}")
            return
        if not equals:
            value = self._next(flag, f"--{name}", rest)
        if name in flag.deprecated_aliases:
            self._say(f"--{name} is deprecated: write --{flag.name}")
        if flag.name == "args-json":
            if value:
                rest[:0] = _arguments(value)
        elif value or flag.empty_is_value:
            self._set(flag, value, f"--{name}")
        else:
            self._unset(flag)

    def _lists(self, rest: list[str]) -> None:
        """What follows --only-lists."""
        seen: set[str] = set()
        while rest:
            argument = rest.pop(0)
            name = argument.removeprefix("--")
            flag = self.flags.get(name)
            if not argument.startswith("--") or flag is None or name != flag.many:
                raise UsageError(
                    f"{argument}: after --only-lists there are lists and their values only",
                    "a value may not begin with `-`; other flags stand before --only-lists",
                )
            if name in seen:
                raise UsageError(f"{argument}: given twice after --only-lists", "no value may be the name of a list")
            seen.add(name)
            for value in _take_values(rest):
                self._set(flag, value, argument)

    def _short(self, argument: str, rest: list[str]) -> None:
        letters = argument[1:]
        while letters:
            letter, letters = letters[0], letters[1:]
            flag = self.shorts.get(letter)
            if flag is None:
                if letter == "h":
                    self.help = True
                    return
                raise UsageError(f"unknown shorthand flag: '{letter}' in {argument}", f"see `{self.program} --help`")
            if len(letters) > 1 and letters[0] == "=":
                value, letters = letters[1:], ""
            elif letters == "=":
                value, letters = "", ""
            elif flag.kind == "bool":
                value = "true"
            elif letters:
                value, letters = letters, ""
            else:
                value = self._next(flag, f"-{letter}", rest)
            if value or flag.empty_is_value:
                self._set(flag, value, f"-{letter}")
            else:
                self._unset(flag)

    def _next(self, flag: Flag, spelling: str, rest: list[str]) -> str:
        if flag.kind == "bool":
            return "true"
        if not rest:
            raise UsageError(f"{spelling} needs a value", f"write {spelling} {flag.placeholder}")
        return rest.pop(0)

    def _set(self, flag: Flag, value: str, spelling: str) -> None:
        _check(flag, value, spelling)
        if flag.takes_many:
            self.texts.setdefault(flag.name, []).append(value)
        else:
            self.texts[flag.name] = [value]
        self.given.add(flag.name)

    def _unset(self, flag: Flag) -> None:
        if not flag.takes_many:
            self.texts.pop(flag.name, None)
            self.given.discard(flag.name)

    def _say(self, notice: str) -> None:
        if notice not in self.notices:
            self.notices.append(notice)

    def read_environment(self, env: Mapping[str, str]) -> None:
        """KANIKO_* and their like; see `Variable` for the three rules."""
        for flag in dict.fromkeys(self.flags.values()):
            variable = flag.variable
            text = env.get(variable.name, "") if variable else ""
            if variable is None or not text:
                continue
            if variable.rule == "default":
                if flag.name in self.given:
                    continue
                if flag.kind == "bool" and not grammar.is_true(text):
                    continue
                self.texts[flag.name] = [text]
            elif variable.rule == "append":
                _check(flag, text, variable.name)
                self.texts.setdefault(flag.name, []).append(text)
            else:
                _check(flag, text, variable.name)
                self.texts[flag.name] = [text]
            self.given.add(flag.name)

    def check_meaning(self, flag: Flag, value: Value) -> None:
        """Explain a flag that means something else here."""
        if flag.means_here and flag.name in self.given and value != _value(flag, []):
            self._say(f"--{flag.name} {flag.means_here}")


def _many(flag: Flag, argument: str, value: str) -> tuple[str, ...]:
    """The values of `--flags=VALUE`."""
    try:
        return grammar.many(value)
    except ValueError as error:
        raise UsageError(f"{argument}: {error}", f"or give each value as --{flag.name}") from None


def _take_values(rest: list[str]) -> list[str]:
    values = []
    while rest and not rest[0].startswith("-"):
        values.append(rest.pop(0))
    return values


def _arguments(text: str) -> list[str]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise UsageError(f"--args-json: {error}", 'write a JSON array of strings: \'["--label", "a=b"]\'') from None
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise UsageError("--args-json: not a JSON array of strings", 'for example \'["--label", "a=b"]\'')
    return value


def _check(flag: Flag, text: str, spelling: str) -> None:
    """Raise UsageError when `text` is no value of `flag`."""
    try:
        if flag.kind == "bool":
            grammar.boolean(text)
        elif flag.kind == "int":
            grammar.integer(text)
        elif flag.kind == "duration":
            grammar.duration(text)
        elif flag.kind == "size":
            grammar.size(text)
        elif flag.kind == "comma-list":
            grammar.comma_list(text)
        elif flag.kind == "map":
            grammar.key_value(text)
        elif flag.kind == "registry-map":
            grammar.registry_map(text)
        elif flag.kind == "choice" and _choice(flag, text) is None:
            raise ValueError(f"expected one of {', '.join(flag.choices)}")
    except ValueError as error:
        raise UsageError(f"{spelling}: {text!r}: {error}", f"{spelling}: {flag.help}") from None


def _choice(flag: Flag, text: str) -> str | None:
    folded = text.lower() if flag.name == "verbosity" else text
    return folded if folded in flag.choices else None


def _value(flag: Flag, texts: list[str]) -> Value:
    """The value of `flag` from its checked texts (none: its default)."""
    if not flag.takes_many:
        return _scalar(flag, texts[-1] if texts else flag.default)
    if flag.kind == "list":
        return tuple(texts)
    if flag.kind == "comma-list":
        return tuple(item for text in texts for item in grammar.comma_list(text))
    if flag.kind == "map":
        return dict(map(grammar.key_value, texts))
    merged: dict[str, tuple[str, ...]] = {}
    for text in texts:
        for source, targets in grammar.registry_map(text).items():
            merged[source] = (*merged.get(source, ()), *targets)
    return merged


def _scalar(flag: Flag, text: str) -> Value:
    if flag.kind == "bool":
        return grammar.boolean(text or "false")
    if flag.kind == "int":
        return grammar.integer(text or "0")
    if flag.kind == "duration":
        return grammar.duration(text or "0")
    if flag.kind == "size":
        return grammar.size(text or "0")
    if flag.kind == "choice":
        return _choice(flag, text) or ""
    return text


def _did_you_mean(name: str, flags: Mapping[str, Flag], program: str) -> str:
    import difflib  # costs milliseconds, and is needed for a mistake only

    visible = [spelling for spelling, flag in flags.items() if not flag.hidden]
    close = difflib.get_close_matches(name, visible, n=1, cutoff=0.6)
    return f"did you mean --{close[0]}?" if close else f"see `{program} --help`"
