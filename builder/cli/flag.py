"""What a flag is. The flags themselves are in `builder.cli.flags`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    "string",
    "bool",  # a value only with `=`
    "int",
    "duration",  # Go's
    "size",
    "choice",  # one of `choices`
    "list",  # repeatable; each value as it is
    "comma-list",  # repeatable, and each value split at commas by the rules of CSV
    "map",  # repeatable key=value; the last value of a key counts
    "registry-map",  # repeatable; from=to;from=to
]
LISTS: frozenset[Kind] = frozenset(("list", "comma-list", "map", "registry-map"))


@dataclass(frozen=True, slots=True)
class Variable:
    """An environment variable that speaks to a flag.

    `default`: counts when the flag is not given. `append`: added to what the flag has. `override`: counts
    whatever the flag says. A bool that cannot be read is false under `default` and an error under `override`.
    """

    name: str
    rule: Literal["default", "append", "override"] = "default"


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag of one or more commands; `name` is unique within a command.

    `default` is text in the flag's own grammar; of a map, it says what absent keys mean. `many` names the flag's
    form that takes zero or more values.
    `means_here` is said once when the flag is given something other than its default.
    `empty_is_value` is for the flags where `--x=` is not "unset".
    `deprecated_aliases` are other spellings that still work and say so.
    """

    name: str
    kind: Kind
    help: str
    group: str
    commands: tuple[str, ...]
    default: str = ""
    short: str = ""
    metavar: str = ""
    choices: tuple[str, ...] = ()
    many: str = ""
    aliases: tuple[str, ...] = ()
    deprecated_aliases: tuple[str, ...] = ()
    variable: Variable | None = None
    means_here: str = ""
    hidden: bool = False
    empty_is_value: bool = False

    @property
    def takes_many(self) -> bool:
        """Whether the flag may be repeated, each time adding to it."""
        return self.kind in LISTS

    @property
    def placeholder(self) -> str:
        """What stands for the value in the help."""
        if self.choices:
            return "|".join(self.choices)
        words = {"int": "N", "duration": "DURATION", "size": "SIZE", "map": "KEY=VALUE", "registry-map": "FROM=TO"}
        return self.metavar or words.get(self.kind, "VALUE")
