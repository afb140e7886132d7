"""Every flag of every command, once.

Parsing, `--help`, docs/flags.md and the comparison with kaniko's command line are all made of this table. It only
grows: a flag that has no meaning any more keeps its row and says so in `means_here`.
"""

from __future__ import annotations

from builder.cli.flag import Flag
from builder.cli.flags import build, kaniko, other_commands, pipelines, registries

FLAGS = (*build.FLAGS, *registries.FLAGS, *pipelines.FLAGS, *kaniko.FLAGS, *other_commands.FLAGS)


def flags_of(command: str) -> dict[str, Flag]:
    """The flags of one command by every spelling: names, aliases, forms for many values."""
    found: dict[str, Flag] = {}
    for flag in FLAGS:
        if command in flag.commands:
            for spelling in (flag.name, *flag.aliases, *flag.deprecated_aliases, *filter(None, (flag.many,))):
                found[spelling] = flag
    return found
