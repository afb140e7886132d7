"""`limpet build`: settings, then the core."""

from __future__ import annotations

from collections.abc import Mapping

from builder import __version__
from builder.cli.arguments import Arguments
from builder.cli.output import Output
from builder.cli.output.progress_file import ProgressFile
from builder.cli.settings import Settings, settings_of
from builder.errors import BuildError


def run(arguments: Arguments, env: Mapping[str, str], output: Output) -> int:
    """Build and push. Raises BuildError."""
    output.say(f"Limpet {__version__}")
    settings = settings_of(arguments, env)
    if settings.output.progress_file:
        output.also(ProgressFile(settings.output.progress_file))
    for secret in settings.build.secrets.values():
        output.redactor.add(secret)
    build_image(settings, env, output)
    output.finish()
    return 0


def build_image(settings: Settings, env: Mapping[str, str], output: Output) -> None:
    """Hand the settings to the rooms that carry them out."""
    raise BuildError("building is not wired to the command line yet")
