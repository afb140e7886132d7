"""`limpet plan`: what a build would do, on standard output. Layers are not fetched."""

from __future__ import annotations

from collections.abc import Mapping

from builder.cli.arguments import Arguments
from builder.cli.images import Images
from builder.cli.known_secrets import mask_environment
from builder.cli.output import Output
from builder.cli.session import fetch_sources, make_plans
from builder.cli.settings import settings_of
from builder.cli.wiring import GitSources, registries, work_directory
from builder.plan import render_json, render_text


def run(arguments: Arguments, env: Mapping[str, str], output: Output) -> int:
    """Print the plan as text or JSON. Raises BuildError."""
    mask_environment(env, output.redactor)
    settings = settings_of(arguments, env)
    with work_directory(settings.build.work_dir, env) as work:
        client = registries(settings.registry, env, output)
        images = Images(client, output)
        sources = fetch_sources(settings, work, env, output, client, images)
        plans = make_plans(settings, sources, images, output, GitSources(work, env, output).time_of)
    print(render_json(plans) if arguments.text("format") == "json" else render_text(plans))
    return 0
