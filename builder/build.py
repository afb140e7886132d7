"""Carry out plans, one for each platform: all stages as one graph, side by side where the isolation allows.

A stage starts at once and waits for another stage only when a step of it reads that stage's files. A stage that is
the same for several platforms (`FROM --platform=$BUILDPLATFORM`) is built once.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Executor, Future, ThreadPoolExecutor, wait
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from builder.errors import IsolationError
from builder.events import Listener
from builder.files import ImageFiles, LayerIndexes, OpenRoots
from builder.isolation.emulation import runs_programs_of
from builder.oci.config import ImageConfig
from builder.oci.image import Image, Layer
from builder.oci.media_types import ImageFormat
from builder.oci.platform import Platform
from builder.once import Once
from builder.plan import SCRATCH, Base, ImageBase, Plan, PlannedStage, ScratchBase, StageBase
from builder.reuse import Reuse
from builder.stage import BuiltStage, Results, StageSettings, StepWork, Workshop, build_stage
from builder.steps.step import BindMount, CopyStep, FromImage, FromStage, RunStep, Step
from builder.stopping import Stopping

if TYPE_CHECKING:
    from builder.isolation import Isolation
    from builder.layer.index import KnownIndexes

ResolveImage = Callable[[str, Platform], Image]
LayerWritten = Callable[[Layer], None]
_AHEAD = 4  # images fetched side by side before a step needs them
_Owned = tuple[int, int]  # a stage: the number of the plan that builds it, and its index


@dataclass(frozen=True, slots=True)
class BuildSettings:
    """`image_format` None: the base image's, and OCI for what starts from scratch.

    `stopping` is called when what still runs is to end soon: the build is over, or an error stops it.
    An `interruption` stops the build from another thread.
    """

    work_dir: Path
    stage: StageSettings
    image_format: ImageFormat | None = None
    annotations: Mapping[str, str] | None = None
    kept_indexes: KnownIndexes | None = None
    keep: Callable[[Image], object] | None = None
    stopping: Callable[[], None] | None = None
    interruption: Stopping | None = None


def build(
    plans: Sequence[Plan],
    resolve: ResolveImage,
    bind_steps: Callable[[Results, Callable[[], bool]], StepWork],
    isolation: Isolation,
    settings: BuildSettings,
    listener: Listener,
    layer_written: LayerWritten = lambda layer: None,
    reuse: Sequence[Reuse] = (),
) -> list[dict[int, Image]]:
    """Build every stage of `plans`; for each plan the targets' images, finished but for being written somewhere, by
    stage index.

    With `reuse`, one for each plan, what is cached is taken over, and stages that nobody needs then are not built.

    `layer_written` is told of every layer of the first targets as soon as it is finished, base layers included.
    Their blobs lie in the work directory: they last as long as that. On return no process runs and no root is open.
    `bind_steps` gets what tells whether the build was stopped, too: a step that waits looks at it.
    Raises the first stage's error; the other stages are stopped. Raises IsolationError before anything is built when
    a RUN needs a platform whose programs do not run here.
    """
    owners = owners_of(plans)
    if reuse:
        plans = [_needed(plan, cache) for plan, cache in zip(plans, reuse, strict=True)]
    _refuse_foreign_programs(plans, reuse, settings.work_dir)
    stopped = threading.Event()
    indexes = LayerIndexes(settings.work_dir, settings.kept_indexes, stopped.is_set, settings.keep)
    roots = OpenRoots(isolation, stopped.is_set)
    blobs = settings.work_dir / "blobs"
    blobs.mkdir(exist_ok=True)
    published, written = _published(plans, owners), _written(plans, owners)
    with (
        ThreadPoolExecutor(max_workers=os.cpu_count(), thread_name_prefix="compress") as compressors,
        ThreadPoolExecutor(max_workers=_AHEAD, thread_name_prefix="fetch-ahead") as ahead,
    ):

        def look_ahead(image: Image) -> None:
            if isolation.concurrent:  # else nothing may go on beside a RUN
                for layer in image.layers:
                    ahead.submit(indexes.changes, layer, contents=False)

        def begin(number: int, plan: Plan) -> _Build:
            images = Once[str, ImageFiles]()
            results = Results(
                lambda reference: images.get(reference, lambda: _image_files(reference, plan, resolve, indexes, roots))
            )
            workshop = Workshop(
                bind_steps(results, stopped.is_set),
                settings.stage,
                listener,
                indexes,
                roots,
                compressors,
                blobs,
                stopped.is_set,
                _names(number, plans, owners),
                lambda steps: _fetch_ahead(steps, results, isolation, ahead),
                look_ahead,
                _bases_of_roots(plans, reuse) if isolation.shares_layers else frozenset(),
            )
            return _Build(plan, owners[number], results, workshop, reuse[number] if reuse else None)

        def build_one(job: _Build, planned: PlannedStage) -> BuiltStage:
            base = _base_image(planned, resolve, job.results, settings)
            cached = job.reuse.stage(planned.index) if job.reuse is not None else None
            planned = replace(planned, display=job.workshop.names[planned.index])
            stage = (job.owners[planned.index], planned.index)
            if stage not in published:
                return build_stage(planned, base, job.workshop, _ignore if stage in written else None, cached)
            if not isinstance(planned.base, StageBase):
                for layer in base.layers:
                    layer_written(layer)
            return build_stage(planned, base, job.workshop, layer_written, cached)

        def stop() -> None:
            stopped.set()
            if settings.stopping is not None:
                settings.stopping()
            roots.close()

        builds = [begin(number, plan) for number, plan in enumerate(plans)]
        with settings.interruption.calling(stop) if settings.interruption else nullcontext():
            _run_graph(builds, build_one, stop, concurrent=isolation.concurrent)
    return [
        {index: _finish(job.results.image(index), job.plan, settings) for index in job.plan.targets} for job in builds
    ]


def _bases_of_roots(plans: Sequence[Plan], reuse: Sequence[Reuse]) -> frozenset[Base]:
    """The images that some stage runs something on."""
    found = set[Base]()
    for number, plan in enumerate(plans):
        for stage in plan.stages:
            if isinstance(stage.base, ImageBase) and _first_run(stage, reuse[number] if reuse else None):
                found.add(stage.base)
    return frozenset(found)


def _first_run(stage: PlannedStage, reuse: Reuse | None) -> RunStep | None:
    """The first RUN of `stage` that is not in the cache."""
    steps = reuse.steps_to_take(stage) if reuse is not None else stage.steps
    return next((step for step in steps if isinstance(step, RunStep)), None)


def _fetch_ahead(steps: Iterable[Step], results: Results, isolation: Isolation, pool: Executor) -> None:
    """Begin to fetch the images that `steps` read from; what goes wrong is told by the step that needs the image."""
    if not isolation.concurrent:
        return  # nothing may go on beside a RUN
    for step in steps:
        if isinstance(step, CopyStep) and isinstance(step.origin, FromImage):
            pool.submit(lambda origin: results.files(origin).tree(), step.origin)
        if isinstance(step, RunStep):
            for mount in step.mounts:
                if isinstance(mount, BindMount) and isinstance(mount.origin, FromImage):
                    pool.submit(lambda origin: results.files(origin).directory(), mount.origin)


def stages_of(plans: Sequence[Plan], reuse: Sequence[Reuse] = ()) -> list[PlannedStage]:
    """The stages that `build` builds: each once, also where several platforms share it."""
    owners, found = owners_of(plans), dict[_Owned, PlannedStage]()
    for number, plan in enumerate(plans):
        for stage in plan.stages:
            if not reuse or stage.index in reuse[number].needed:
                found.setdefault((owners[number][stage.index], stage.index), stage)
    return list(found.values())


def cross_stage_sources(stages: Iterable[PlannedStage]) -> dict[int, list[str]]:
    """The paths that COPY takes from each stage, by its index, in the order in which `stages` take them."""
    found: dict[int, list[str]] = {}
    for stage in stages:
        for step in stage.steps:
            if isinstance(step, CopyStep) and isinstance(step.origin, FromStage):
                found.setdefault(step.origin.index, []).extend(step.sources)
    return found


@dataclass(frozen=True, slots=True)
class _Build:
    """One plan under way. `owners` says which plan builds each stage, by its index: the first that has it."""

    plan: Plan
    owners: Mapping[int, int]
    results: Results
    workshop: Workshop
    reuse: Reuse | None


def _run_graph(
    builds: Sequence[_Build],
    build_one: Callable[[_Build, PlannedStage], BuiltStage],
    stop: Callable[[], None],
    *,
    concurrent: bool,
) -> None:
    """Run all stages to their end, or to the first error, which is raised once `stop` has ended the others."""
    workers = sum(len(job.plan.stages) for job in builds) if concurrent else 1
    with ThreadPoolExecutor(max_workers=workers, thread_name_prefix="stage") as pool:
        gate = threading.Event()

        def start(job: _Build, planned: PlannedStage) -> BuiltStage:
            gate.wait()
            return build_one(job, planned)

        # `plan.stages` is in build order: a single worker never waits for a stage that has not run.
        futures: dict[_Owned, Future[BuiltStage]] = {}
        for job in builds:
            for planned in job.plan.stages:
                stage = (job.owners[planned.index], planned.index)
                if stage not in futures:
                    futures[stage] = pool.submit(start, job, planned)
                job.results.add(planned.index, futures[stage])
        gate.set()
        try:
            done, _ = wait(futures.values(), return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
            for job in builds:
                for index in job.plan.targets:
                    job.results.image(index)  # its last layers are written from roots that are open until here
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            stop()


def owners_of(plans: Sequence[Plan]) -> list[dict[int, int]]:
    """For each plan: index of a stage -> number of the first plan with the same stage, all that it reads included."""
    found: list[dict[int, int]] = []
    for number, plan in enumerate(plans):
        owners: dict[int, int] = {}
        for stage in plan.stages:
            same = (
                earlier[stage.index]
                for earlier, other in zip(found, plans, strict=False)
                if stage in other.stages and all(earlier[index] == owners[index] for index in stage.dependencies)
            )
            owners[stage.index] = next(same, number)
        found.append(owners)
    return found


def _names(number: int, plans: Sequence[Plan], owners: Sequence[Mapping[int, int]]) -> dict[int, str]:
    """How each stage of a plan is shown: with the platform, where others have a stage of this name, too."""
    plan, names = plans[number], {}
    for stage in plan.stages:
        differs = len({one[stage.index] for one in owners if stage.index in one}) > 1
        names[stage.index] = f"{stage.display} {plan.platform}" if differs else stage.display
    return names


def _published(plans: Sequence[Plan], owners: Sequence[Mapping[int, int]]) -> set[_Owned]:
    """The stages whose layers are in the image that is pushed."""
    return {
        (owned[index], index)
        for plan, owned in zip(plans, owners, strict=True)
        for index in _ancestors(plan, plan.targets[0])
    }


def _written(plans: Sequence[Plan], owners: Sequence[Mapping[int, int]]) -> set[_Owned]:
    """The stages whose layers are written at once: a root that is gone leaves nothing but its layers. Layers that
    nobody reads are not written."""
    found: set[_Owned] = set()
    for plan, owned in zip(plans, owners, strict=True):
        ends = [*plan.targets, *(stage.base.index for stage in plan.stages if isinstance(stage.base, StageBase))]
        found |= {(owned[index], index) for end in ends for index in _ancestors(plan, end)}
    return found


def _needed(plan: Plan, reuse: Reuse) -> Plan:
    """`plan` without the stages that only cached steps would read from."""
    return replace(plan, stages=tuple(stage for stage in plan.stages if stage.index in reuse.needed))


def _refuse_foreign_programs(plans: Sequence[Plan], reuse: Sequence[Reuse], work_dir: Path) -> None:
    """What starts from scratch is let through: nobody knows what programs COPY brings."""
    runs: dict[Platform, bool] = {}
    for number, plan in enumerate(plans):
        for stage in plan.stages:
            run = _first_run(stage, reuse[number] if reuse else None)
            platform = _platform_of_programs(stage, plan)
            if run is None or platform is None:
                continue
            if platform not in runs:
                runs[platform] = runs_programs_of(platform, work_dir)
            if not runs[platform]:
                error = IsolationError(
                    f"stage {stage.display} is for {platform}, whose programs do not run on this machine",
                    "register an emulator (binfmt_misc, e.g. by qemu-user-static) on the node, start the stage "
                    "FROM --platform=$BUILDPLATFORM, or build each platform on a machine of its own and merge them "
                    "with limpet index create",
                )
                error.location = run.location
                raise error


def _platform_of_programs(stage: PlannedStage, plan: Plan) -> Platform | None:
    base = stage.base
    while isinstance(base, StageBase):
        base = plan.stage(base.index).base
    return base.config.platform if isinstance(base, ImageBase) else None


def _image_files(
    reference: str, plan: Plan, resolve: ResolveImage, indexes: LayerIndexes, roots: OpenRoots
) -> ImageFiles:
    """What COPY and mounts name: always for the target platform; a base may be for another."""
    if reference == SCRATCH:
        image = Image(ImageConfig(plan.stages[0].platform))
    else:
        platforms = {external.reference: external.platform for stage in plan.stages for external in stage.images}
        image = resolve(reference, platforms[reference])
    return ImageFiles(lambda: image, roots, lambda: indexes.tree(image, contents=True))


def _base_image(planned: PlannedStage, resolve: ResolveImage, results: Results, settings: BuildSettings) -> Image:
    match planned.base:
        case ScratchBase():
            return Image(ImageConfig(planned.platform), format=settings.image_format or "oci")
        case StageBase(index):
            return results.image(index)
        case ImageBase(reference, platform):
            image = resolve(reference, platform)
            compression = settings.stage.layer_format.compression
            image_format = settings.image_format or ("oci" if compression == "zstd" else image.format)
            # What the base image says of itself is not true of what is made from it.
            return replace(image, format=image_format, annotations={})
    raise NotImplementedError(planned.base)


def _finish(image: Image, plan: Plan, settings: BuildSettings) -> Image:
    config = image.config.with_history_times()
    if not config.created:
        config = replace(config, created=settings.stage.created or "1970-01-01T00:00:00Z")
    return replace(image, config=config, annotations=dict(settings.annotations or {}))


def _ancestors(plan: Plan, index: int) -> set[int]:
    """The stages whose layers are in the image of stage `index`: itself and what its FROM leads to."""
    found = {index}
    base = plan.stage(index).base
    while isinstance(base, StageBase):
        found.add(base.index)
        base = plan.stage(base.index).base
    return found


def _ignore(layer: Layer) -> None:
    pass
