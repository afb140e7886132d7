"""`limpet plan`: what a build would do, on standard output. Layers are not fetched."""

from __future__ import annotations

from collections.abc import Mapping

from builder.cli.arguments import Arguments
from builder.cli.build_command import plans_only
from builder.cli.known_secrets import mask_environment
from builder.cli.output import Output
from builder.cli.settings import settings_of
from builder.cli.signals import HeldSignals
from builder.cli.wiring import work_directory
from builder.plan import render_json, render_text
from builder.stopping import Stopping


def run(arguments: Arguments, env: Mapping[str, str], output: Output) -> int:
    """Print the plan as text or JSON. Raises BuildError."""
    mask_environment(env, output.redactor)
    settings = settings_of(arguments, env)
    stopping = Stopping()
    with HeldSignals() as signals, work_directory(settings.build.work_dir, env) as work:
        plans, cached = signals.carry_out(lambda: plans_only(settings, env, output, work, stopping), stopping)
    print(render_json(plans, cached) if arguments.text("format") == "json" else render_text(plans, cached))
    return 0
