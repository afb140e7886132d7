"""`limpet login`."""

from __future__ import annotations

from collections.abc import Mapping

from builder.cli.arguments import Arguments
from builder.cli.output import Output
from builder.errors import UsageError


def run(arguments: Arguments, env: Mapping[str, str], output: Output) -> int:
    """Not there yet: refused."""
    raise UsageError("limpet login is not available in this version")
