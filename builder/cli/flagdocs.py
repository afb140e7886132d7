"""docs/flags.md, made of the flag table: `python -m builder.cli.flagdocs > docs/flags.md`."""

from __future__ import annotations

from collections.abc import Iterable

from builder.cli.commands import COMMANDS
from builder.cli.flag import Flag
from builder.cli.flags import FLAGS
from builder.cli.flags.groups import GROUPS, WARM

_INTRODUCTION = """\
# Flags

<!-- Made from the flag table by `python -m builder.cli.flagdocs`; do not edit. -->

`limpet` builds when it is given flags; `limpet build` is the same, and so is `/kaniko/executor`. `limpet warm` is
`/kaniko/warmer`. `limpet COMMAND --help` shows this page's rows for one command.

## Grammar

- `--flag=value` and `--flag value` are the same; short flags are written `-f value`, `-f=value` or `-fvalue`.
- A flag that is true or false takes its value only with `=`: `--cache` or `--cache=true`, never `--cache true`.
  Any other word on the line is an error, so a mistake of this kind does not pass unseen.
- `--flag=` (an empty value) is the flag not given, so that a pipeline can pass an empty parameter on. For a list,
  it adds nothing. (`--credential-helpers=` is the exception: it means none.)
- Repeatable flags take one value each time, commas and all. `--target` and `--platform` also split at commas.
- Repeatable flags have a **list form**, named in their rows, that takes zero or more values, up to the next argument
  that begins with `-`: `--build-args A=1 B=2 --labels --no-push`. This is for Tekton, whose array parameters become
  several arguments. With `=`, the list form takes a JSON array (`--build-args='["A=1"]'`), a JSON object
  (`--labels='{"a": "b"}'`) or lines; this is for Argo, whose parameters are always one argument.
- `--args-json='["--label", "a=b"]'` stands for any arguments at all.
- Durations are Go's: `336h`, `90m`, `1h30m`; there is no unit for days. Sizes: `500M`, `10Gi`.
- Words in upper case stand for values. `FF_KANIKO_*` variables are accepted; behaviour is always the repaired one.
"""


def page() -> str:
    """The whole page."""
    lines = [_INTRODUCTION, "## Flags of a build", ""]
    for group in GROUPS:
        lines += _section(f"### {group}", [flag for flag in FLAGS if flag.group == group and "build" in flag.commands])
    lines += _section("## Flags of `limpet warm` (`/kaniko/warmer`)", [f for f in FLAGS if f.commands == WARM])
    lines += ["The flags of registries and the log are those of a build.", ""]
    others = [flag for flag in FLAGS if "build" not in flag.commands and flag.commands != WARM]
    lines += _section("## Flags of other commands", others)
    lines += ["## Which command takes which flags", "", "| Command | Flags |", "|---|---|"]
    lines += [f"| `{name}` | {_names(name)} |" for name in COMMANDS]
    lines += ["", "## Environment variables that speak to flags", "", "| Variable | Flag | Rule |", "|---|---|---|"]
    lines += [row for flag in FLAGS for row in _variable_row(flag)]
    lines += ["", "## Deprecated spellings", "", "| Spelling | Write |", "|---|---|"]
    lines += [f"| `--{old}` | `--{flag.name}` |" for flag in FLAGS for old in flag.deprecated_aliases]
    return "\n".join(lines) + "\n"


def _section(heading: str, flags: Iterable[Flag]) -> list[str]:
    lines = [heading, "", "| Flag | Value | Default | Meaning |", "|---|---|---|---|"]
    lines += [_row(flag) for flag in flags]
    return [*lines, ""]


def _row(flag: Flag) -> str:
    names = [f"`-{flag.short}`"] if flag.short else []
    names += [f"`--{name}`" for name in (flag.name, *flag.aliases)]
    value = "true, false" if flag.kind == "bool" else f"`{flag.placeholder}`"
    if flag.takes_many:
        value += ", repeatable"
    meaning = flag.help
    if flag.many and flag.many != flag.name:
        meaning += f" List form: `--{flag.many}`."
    if flag.means_here and not flag.help.startswith("No effect"):
        meaning += f" In kaniko's pipelines: it {flag.means_here}."
    default = f"`{flag.default}`" if flag.default else ""
    return "| " + " | ".join(_cell(text) for text in (", ".join(names), value, default, meaning)) + " |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _names(command: str) -> str:
    if command == "plan":
        return "those of `build` but `--dryrun`, and `--format`"
    flags = [flag for flag in FLAGS if command in flag.commands]
    if command == "build":
        return 'all of "Flags of a build"'
    return " ".join(f"`--{flag.name}`" for flag in flags)


def _variable_row(flag: Flag) -> list[str]:
    if flag.variable is None:
        return []
    rules = {
        "default": "counts when the flag is not given",
        "append": "added to what the flag gives",
        "override": "wins over the flag",
    }
    return [f"| `{flag.variable.name}` | `--{flag.name}` | {rules[flag.variable.rule]} |"]


if __name__ == "__main__":
    print(page(), end="")
