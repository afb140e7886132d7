"""`limpet version`."""

from __future__ import annotations

import json
from collections.abc import Mapping

from builder import __version__
from builder.cli.arguments import Arguments
from builder.cli.output import Output


def run(arguments: Arguments, env: Mapping[str, str], output: Output) -> int:
    """Print the version on standard output."""
    print(
        json.dumps({"version": __version__})
        if arguments.text("format") == "json"
        else f"Limpet version :  v{__version__}"
    )
    return 0
