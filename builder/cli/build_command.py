"""`limpet build`: settings, then the core."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder.build import BuildSettings, build
from builder.cache.indexes import CachedIndexes
from builder.cli.arguments import Arguments
from builder.cli.caching import cache_views, layer_cache, travelling_mounts, with_cache, without_cache
from builder.cli.images import Images
from builder.cli.known_secrets import mask_environment
from builder.cli.origins import bases as bases_of
from builder.cli.origins import metadata, platforms
from builder.cli.output import Output
from builder.cli.output.otlp import Exporter, collector_of
from builder.cli.output.progress_file import ProgressFile
from builder.cli.output.trace_file import TraceFile
from builder.cli.session import Sources, fetch_sources, make_plans
from builder.cli.settings import OutputSettings, Settings, settings_of
from builder.cli.signals import HeldSignals
from builder.cli.wiring import (
    GitSources,
    local_store,
    registries,
    stage_settings,
    work_directory,
)
from builder.events import BuildStarted
from builder.isolation import Isolation
from builder.isolation.choose import InPlaceSettings, choose
from builder.oci.image import Image, Layer
from builder.oci.index import descriptor_of
from builder.oci.reference import Reference
from builder.oci.stoppable import stoppable
from builder.outputs import BaseImage, too_large_for_tekton, write_names, write_results
from builder.plan import CacheView, Plan, render_text
from builder.publish import (
    ArchiveDestination,
    Destination,
    LayoutDestination,
    RegistryDestination,
    check_push,
    registry_destinations,
)
from builder.registry.credentials.files import credential_files
from builder.registry.registries import Registries
from builder.reuse import Reuse
from builder.stage import Results, StageSettings
from builder.stage_graph import cross_stage_sources, stages_of
from builder.step_keys import KeySources
from builder.step_work import Inputs, StepWorkOf
from builder.steps.cache_mounts import CacheMounts
from builder.steps.context import ContextTree
from builder.steps.download import Downloads
from builder.steps.mounts import Secrets
from builder.stopping import Stopping

if TYPE_CHECKING:
    from builder.store.store import Store


def run(arguments: Arguments, env: Mapping[str, str], output: Output) -> int:
    """Build and push. Raises BuildError."""
    settings = settings_of(arguments, env)
    mask_environment(env, output.redactor)
    for secret in settings.build.secrets.values():
        output.redactor.add(secret)
    stopping = Stopping()
    with (
        _also_told(settings.output, env, output),
        HeldSignals() as signals,
        work_directory(settings.build.work_dir, env) as work,
    ):
        if settings.build.dry_run:
            planned = signals.carry_out(lambda: plans_only(settings, env, output, work, stopping), stopping)
            print(render_text(*planned))
            return 0
        # Before any thread exists: namespaces can be entered by a process with one thread only.
        with local_store(settings.cache, output) or nullcontext() as store:
            indexes = CachedIndexes(work, output, store.indexes if store else None)
            isolation = choose(settings.build.isolation, work, output, store, _in_place(settings, env), indexes)
            surroundings = _Surroundings(settings, env, output, work, isolation, store, indexes, stopping)
            signals.carry_out(lambda: _build(surroundings), stopping)
    output.finish()
    return 0


def _in_place(settings: Settings, env: Mapping[str, str]) -> InPlaceSettings:
    credentials = (*credential_files(env), *settings.build.secret_files)
    return InPlaceSettings(env, credentials, settings.build.in_place_anywhere)


@contextmanager
def _also_told(asked: OutputSettings, env: Mapping[str, str], output: Output) -> Iterator[None]:
    """Whoever else wants to know how the build goes. Raises UsageError."""
    with ExitStack() as stack:
        if asked.progress_file:
            output.also(ProgressFile(asked.progress_file))
        if asked.trace_file:
            output.also(stack.enter_context(TraceFile(asked.trace_file, output.redactor)))
        collector = collector_of(env)
        if collector:
            output.also(stack.enter_context(Exporter(collector, output.redactor, output)))
        yield


def plans_only(
    settings: Settings, env: Mapping[str, str], output: Output, work: Path, stopping: Stopping
) -> tuple[list[Plan], list[CacheView]]:
    """What a build would do, and with `--cache` what it would take from there. Fetches no layers. Raises BuildError."""
    client = registries(settings.registry, env, output)
    with ExitStack() as stack:
        stack.enter_context(stopping.calling(client.cancel))
        images, git = Images(client, output), GitSources(work, env, output)
        sources = fetch_sources(settings, work, env, output, client, images, stopping)
        plans = make_plans(settings, sources, images, output, git.time_of)
        if not settings.cache.enabled:
            return plans, []
        references = [Reference.parse(name) for name in settings.output.destinations]
        inputs = _inputs(settings, sources, plans[0], work, git, CacheMounts(work / "mounts", stopping))
        stage = stage_settings(settings.image, settings.build.ignore_paths, plans[0].epoch)
        cache = stack.enter_context(layer_cache(replace(settings.cache, write=False), references, client, output))
        assert cache is not None
        return plans, cache_views(plans, KeySources(inputs, images.image, stage, git.tip), cache, settings, output)


@dataclass(frozen=True, slots=True)
class _Surroundings:
    """What a build has before anything is fetched. `started` is in seconds since 1970."""

    settings: Settings
    env: Mapping[str, str]
    output: Output
    work: Path
    isolation: Isolation
    store: Store | None
    indexes: CachedIndexes
    stopping: Stopping
    started: float = field(default_factory=time.time)


def _build(here: _Surroundings) -> None:
    settings, output = here.settings, here.output
    client = registries(settings.registry, here.env, output)
    references = [Reference.parse(name) for name in settings.output.destinations]
    images = Images(client, output, here.store)
    with ExitStack() as stack:
        stack.enter_context(here.stopping.calling(client.cancel))
        pushes = _pushes(settings, references, client, output, stack)
        checker = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="push-check"))
        allowed = checker.submit(check_push, pushes if settings.output.check_push_permission else [])
        sources = fetch_sources(settings, here.work, here.env, output, client, images, here.stopping)
        git = GitSources(here.work, here.env, output)
        plans = make_plans(settings, sources, images, output, git.time_of)
        if settings.output.print_plan:
            print(render_text(plans), flush=True)
        allowed.result()
        # The epoch and the hostname come from the command line: they are the same for every platform.
        stage = stage_settings(settings.image, settings.build.ignore_paths, plans[0].epoch)

        cache = stack.enter_context(layer_cache(settings.cache, references, client, output))
        mounts = travelling_mounts(settings.cache, cache, here.work, output)
        caches = partial(CacheMounts, _mounts_directory(here), elsewhere=mounts)
        inputs = _inputs(settings, sources, plans[0], here.work, git, caches(lambda: False))
        job = _Job(here, references, pushes, images, sources, plans, stage, inputs, caches)
        if cache is None or not settings.cache.enabled:
            without_cache(lambda: job.carry_out(()), output, here.indexes, here.stopping)
        else:
            keys = KeySources(inputs, images.image, stage, git.tip)
            with_cache(
                plans,
                keys,
                cache,
                settings,
                output,
                job.carry_out,
                here.indexes,
                here.stopping,
                write_meanwhile=here.isolation.concurrent,
            )
        if mounts is not None and settings.cache.write:
            mounts.send()


def _mounts_directory(here: _Surroundings) -> Path:
    """Where cache mounts lie: in the store when it keeps them."""
    return (here.store.directory if here.store and here.store.writable else here.work) / "mounts"


@dataclass(frozen=True, slots=True)
class _Job:
    """A build whose plans are made. `caches` makes its cache mounts from what tells whether it was stopped."""

    here: _Surroundings
    references: list[Reference]
    pushes: list[RegistryDestination]
    images: Images
    sources: Sources
    plans: list[Plan]
    stage: StageSettings
    inputs: Inputs
    caches: Callable[[Callable[[], bool]], CacheMounts]

    def carry_out(self, reuse: Sequence[Reuse]) -> None:
        """Build what `reuse` leaves to be built, and publish. Raises BuildError."""
        if self.here.store is not None:
            self.here.store.resume()
        stages = stages_of(self.plans, reuse)
        steps = sum(len(stage.steps) for stage in stages)
        self.here.output.tell(BuildStarted(len(stages), steps, cross_stage_sources(stages_of(self.plans))))
        built = build(
            self.plans,
            self.images.image,
            self._bind_steps,
            self.here.isolation,
            self._build_settings(),
            self.here.output,
            self._prepare,
            reuse,
        )
        self._deliver([targets[plan.targets[0]] for plan, targets in zip(self.plans, built, strict=True)])

    def _build_settings(self) -> BuildSettings:
        here = self.here
        return BuildSettings(
            here.work,
            self.stage,
            here.settings.image.format or None,
            here.settings.image.annotations,
            kept_indexes=here.indexes if here.store or here.settings.cache.enabled else None,
            keep=here.isolation.keep,
            stopping=here.store.stop if here.store else None,
            interruption=here.stopping,
        )

    def _bind_steps(self, results: Results, stopped: Callable[[], bool]) -> StepWorkOf:
        return StepWorkOf(replace(self.inputs, caches=self.caches(stopped), stopped=stopped), results)

    def _prepare(self, layer: Layer) -> None:
        for destination in self.pushes if self.here.isolation.concurrent else ():  # else nothing may go on beside RUN
            destination.prepare(layer)

    def _deliver(self, made: list[Image]) -> None:
        here = self.here
        resolved = self.images.resolved()
        bases, origins = bases_of(self.plans[0], resolved), metadata(self.sources, self.plans[0], resolved)
        facts = {**origins, **platforms(made)}
        asked = here.settings.output
        _publish(made, asked, self.references, self.pushes, bases, facts, here.output, here.stopping)
        if asked.reports_directory:
            from builder.cli.reports import Reports  # few builds want them

            reports = Reports(asked.reports_directory, here.settings, here.work, here.output, here.started)
            reports.write(made, descriptor_of(made).digest, origins)


def _pushes(
    settings: Settings, references: list[Reference], client: Registries, output: Output, stack: ExitStack
) -> list[RegistryDestination]:
    if not settings.output.push:
        return []
    destinations = registry_destinations(
        references, client, output, ignore_immutable=settings.output.ignore_immutable_tags
    )
    return [stack.enter_context(destination) for destination in destinations]


def _inputs(
    settings: Settings, sources: Sources, plan: Plan, work: Path, git: GitSources, caches: CacheMounts
) -> Inputs:
    epoch = 0 if settings.image.reproducible else None
    epoch = plan.epoch if plan.epoch is not None else epoch
    return Inputs(
        context=ContextTree(sources.context.path, sources.ignore),
        named={name: ContextTree(fetched.path) for name, fetched in sources.named.items()},
        secrets=Secrets(settings.build.secrets, settings.build.ssh),
        fetch_git=git.fetch,
        caches=caches,
        created=time.time_ns() if epoch is None else epoch * 10**9,
        hostname=plan.hostname,
        work_dir=work,
        downloads=Downloads(work / "downloads"),
        unknown_owners_are_root=settings.build.unknown_owners_are_root,
    )


def _publish(
    images: list[Image],
    asked: OutputSettings,
    references: list[Reference],
    pushes: list[RegistryDestination],
    bases: list[BaseImage],
    origins: Mapping[str, Any],
    output: Output,
    stopping: Stopping,
) -> None:
    """Digest files first, so that they are there even when a push fails; then files, then registries."""
    digest = descriptor_of(images).digest
    names = [str(reference) for reference in references]
    write_names(asked.files, names, digest)
    destinations: list[Destination] = []
    if asked.tar_path:
        destinations.append(ArchiveDestination(asked.tar_path, references))
    if asked.oci_layout_path:
        destinations.append(LayoutDestination(asked.oci_layout_path))
    for destination in destinations:
        destination.write([stoppable(image, stopping) for image in images])
    for push in pushes:
        push.write(images)
    if not asked.push:
        output.say("Skipping push to container registry due to --no-push flag")
        output.say(f"digest: {digest}")
    results = write_results(asked.files, names, digest, bases, {**origins, **output.summary.to_json()})
    if asked.files.results and (note := too_large_for_tekton(results)):
        output.say(note, "warning")
