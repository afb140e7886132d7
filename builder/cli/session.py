"""What `limpet build` and `limpet plan` have in common: from settings to a plan."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from builder.cli.dockerfile_source import FoundDockerfile, find_dockerfile
from builder.cli.images import Images
from builder.cli.output import Output
from builder.cli.settings import Settings, SourceSettings
from builder.cli.wiring import fetch_context
from builder.dockerfile.stages import parse
from builder.errors import BuildError
from builder.events import DockerfileRead
from builder.oci.platform import Platform
from builder.plan import Plan, PlanOptions, ResolveTime, external_images, plan
from builder.registry.registries import Registries
from builder.steps.context import IgnoreFile, find_ignore_file
from builder.stopping import Stopping
from context_sources.redaction import secrets_of
from context_sources.source import Fetched, nothing_to_do


@dataclass(frozen=True, slots=True)
class Sources:
    """Everything of the user's that the build reads, on this machine now."""

    context: Fetched
    named: Mapping[str, Fetched]
    dockerfile: FoundDockerfile
    ignore: IgnoreFile | None


def fetch_sources(
    settings: Settings,
    work: Path,
    env: Mapping[str, str],
    output: Output,
    client: Registries,
    images: Images,
    stopping: Stopping,
) -> Sources:
    """Fetch the contexts, all at once, and find the Dockerfile; base images resolve meanwhile. Raises ContextError,
    and BuildError when it is `stopping`."""
    asked = settings.source
    for address in (asked.context, *asked.named_contexts.values()):
        for secret in secrets_of(address, env):
            output.redactor.add(secret)
    directories = {
        name: address
        for name, address in asked.named_contexts.items()
        if not address.startswith(("docker-image://", "oci-layout://"))
    }

    def fetch_one(
        source: SourceSettings, address: str, name: str, seen: Callable[[Path], None] = nothing_to_do
    ) -> Fetched:
        return fetch_context(source, address, work / name, env, output, client, stopping, seen)

    with ThreadPoolExecutor(len(directories) + 1, thread_name_prefix="context") as pool:

        def look_ahead(dockerfile: Path) -> None:
            pool.submit(_resolve_ahead, settings, dockerfile, images)

        here = os.path.isfile(asked.dockerfile)  # it then wins over the context's: see find_dockerfile
        if here:
            look_ahead(Path(asked.dockerfile))
        jobs = {
            name: pool.submit(fetch_one, replace(asked, sub_path=""), address, f"context-{n}")
            for n, (name, address) in enumerate(directories.items(), 1)
        }
        context = fetch_one(asked, asked.context, "context", nothing_to_do if here else look_ahead)
        named = {name: job.result() for name, job in jobs.items()}
    dockerfile = find_dockerfile(asked.dockerfile, context.path)
    return Sources(context, named, dockerfile, find_ignore_file(context.path, dockerfile.path))


def _resolve_ahead(settings: Settings, path: Path, images: Images) -> None:
    """Ask for the base images that the Dockerfile at `path` names. What is wrong with it is told when it is planned."""
    with contextlib.suppress(BuildError, OSError):
        dockerfile = parse(path.read_bytes(), settings.source.dockerfile)
        options = [_options(settings, None, platform) for platform in settings.build.platforms or (None,)]
        images.hint(dict.fromkeys(image for each in options for image in external_images(dockerfile, each)))


def make_plans(
    settings: Settings, sources: Sources, images: Images, output: Output, time_of: ResolveTime
) -> list[Plan]:
    """Parse the Dockerfile and plan the build, once for each platform; warnings are told.

    Raises DockerfileError, RegistryError...
    """
    found = sources.dockerfile
    output.tell(DockerfileRead(found.name, found.data.decode("utf-8", "replace")))
    dockerfile = parse(found.data, found.name)
    options = [_options(settings, sources, platform) for platform in settings.build.platforms or (None,)]
    images.prefetch(dict.fromkeys(image for each in options for image in external_images(dockerfile, each)))
    plans = [plan(dockerfile, each, images.config, time_of) for each in options]
    said = [f"{warning.rule}: {warning.message} ({warning.location})" for one in plans for warning in one.warnings]
    said += [note for one in plans for note in one.notes]
    for text in dict.fromkeys(said):
        output.say(text, "warning")
    return plans


def _options(settings: Settings, sources: Sources | None, platform: Platform | None) -> PlanOptions:
    """Without `sources` those that say which images are needed, and no more."""
    auto_labels = _auto_labels(sources.context) if sources and settings.image.auto_labels else {}
    return PlanOptions(
        build_platform=Platform.host(),
        target_platform=platform,
        build_args=settings.build.build_args,
        targets=settings.build.targets,
        labels={**auto_labels, **settings.image.labels},
        named_contexts=settings.source.named_contexts,
        epochs=_epochs(sources) if sources else {},
        ignore_patterns=sources.ignore.patterns if sources and sources.ignore else (),
        allow=settings.build.allow,
    )


def _auto_labels(context: Fetched) -> dict[str, str]:
    """Of a context with a revision; where a directory of this machine came from, nobody knows."""
    if not context.revision:
        return {}
    return {
        "org.opencontainers.image.source": context.source,
        "org.opencontainers.image.revision": context.revision,
    }


def _epochs(sources: Sources) -> dict[str, int]:
    """SOURCE_DATE_EPOCH=context and =NAME: as in BuildKit, a directory of this machine has no time."""
    fetched = {"context": sources.context, **sources.named}
    return {name: one.time for name, one in fetched.items() if one.time is not None}
