"""`limpet plan`: what a build would do, on standard output."""

from __future__ import annotations

from collections.abc import Mapping

from builder.cli.arguments import Arguments
from builder.cli.output import Output
from builder.cli.settings import settings_of
from builder.errors import BuildError


def run(arguments: Arguments, env: Mapping[str, str], output: Output) -> int:
    """Print the plan as text or JSON. Raises BuildError."""
    settings_of(arguments, env)
    raise BuildError("planning is not wired to the command line yet")
