"""`--help`, made of the flag table and the command table."""

from __future__ import annotations

import textwrap

from builder import __version__
from builder.cli.commands import COMMANDS
from builder.cli.flag import Flag
from builder.cli.flags import FLAGS
from builder.cli.flags.groups import GROUPS

_WIDTH = 100
_COLUMN = 34  # where the text of a flag begins


def overview() -> str:
    """`limpet --help`: what Limpet is, its commands, and the flags of a build."""
    lines = [
        f"Limpet {__version__} builds container images from Dockerfiles inside an ordinary pod.",
        "",
        "Usage:",
        "  limpet --context DIRECTORY --destination REGISTRY/NAME:TAG [FLAG...]",
        "  limpet COMMAND [FLAG...] [ARGUMENT...]",
        "",
        "Commands:",
    ]
    lines += [_row(f"  {command.name}", command.summary) for command in COMMANDS.values()]
    lines += ["", "`limpet COMMAND --help` lists a command's flags; those of a build:", "", *_flags("build")]
    return "\n".join(lines)


def command_help(name: str, program: str) -> str:
    """`limpet NAME --help`; `program` is how the command was called."""
    command = COMMANDS[name]
    usage = f"  {program} [FLAG...] {command.operands}".rstrip()
    summary = command.summary[0].upper() + command.summary[1:] + "."
    return "\n".join([summary, "", "Usage:", usage, "", *_flags(name)])


def group_help(first: str) -> str:
    """`limpet cache --help`: the commands whose first word is `first`."""
    names = [name for name in COMMANDS if name.startswith(f"{first} ")]
    rows = [_row(f"  {name}", COMMANDS[name].summary) for name in names]
    usage = f"  limpet {first} {'|'.join(name.partition(' ')[2] for name in names)} [FLAG...] [ARGUMENT...]"
    return "\n".join(["Usage:", usage, "", "Commands:", *rows, "", "`limpet COMMAND --help` lists a command's flags."])


def _flags(command: str) -> list[str]:
    lines: list[str] = []
    for group in GROUPS:
        members = [flag for flag in FLAGS if flag.group == group and command in flag.commands and not flag.hidden]
        if members:
            lines += [f"{group}:", *(flag_row(flag) for flag in members), ""]
    lines += [
        "A flag's value follows as --flag=value or --flag value; true and false only with `=`.",
        "--flag= (an empty value) is the flag not given. The list form of a flag takes zero or more values,",
        "up to the next flag; with `=` it takes a JSON array.",
    ]
    return lines


def flag_row(flag: Flag) -> str:
    """One flag's lines."""
    short = f"-{flag.short}, " if flag.short else "    "
    value = "" if flag.kind == "bool" else f" {flag.placeholder}"
    text = flag.help
    if flag.default and flag.default not in ("false", "0", "-1") and flag.kind not in ("map",):
        text += f" Default: {flag.default}."
    if flag.many and flag.many != flag.name:
        text += f" List form: --{flag.many}."
    if flag.variable:
        text += f" [${flag.variable.name}]"
    return _row(f"  {short}--{flag.name}{value}", text)


def _row(head: str, text: str) -> str:
    indent = " " * _COLUMN
    wrapped = textwrap.wrap(text, _WIDTH - _COLUMN, break_on_hyphens=False) or [""]
    first = [f"{head:<{_COLUMN}}{wrapped[0]}"] if len(head) < _COLUMN - 1 else [head, indent + wrapped[0]]
    return "\n".join([*first, *(indent + line for line in wrapped[1:])])
