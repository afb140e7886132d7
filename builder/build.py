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
from functools import partial
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
from builder.stage_graph import (
    OwnedStage,
    bases_of_roots,
    display_names,
    first_run,
    owners_of,
    published_stages,
    without_unneeded_stages,
    written_stages,
)
from builder.steps.step import BindMount, CopyStep, FromImage, RunStep, Step
from builder.stopping import Stopping

if TYPE_CHECKING:
    from builder.isolation import Isolation
    from builder.layer.index import KnownIndexes

ResolveImage = Callable[[str, Platform], Image]
LayerWritten = Callable[[Layer], None]
BindSteps = Callable[[Results, Callable[[], bool]], StepWork]
_AHEAD = 4  # images fetched side by side before a step needs them


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

    @property
    def blobs(self) -> Path:
        """Where the layers that are written lie."""
        return self.work_dir / "blobs"


def build(
    plans: Sequence[Plan],
    resolve: ResolveImage,
    bind_steps: BindSteps,
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
        plans = [without_unneeded_stages(plan, cache) for plan, cache in zip(plans, reuse, strict=True)]
    _refuse_foreign_programs(plans, reuse, settings.work_dir)
    stopped = threading.Event()
    settings.blobs.mkdir(exist_ok=True)
    with (
        ThreadPoolExecutor(max_workers=os.cpu_count(), thread_name_prefix="compress") as compressors,
        ThreadPoolExecutor(max_workers=_AHEAD, thread_name_prefix="fetch-ahead") as ahead,
    ):
        site = _Site(
            resolve,
            isolation,
            settings,
            listener,
            LayerIndexes(settings.work_dir, settings.kept_indexes, stopped.is_set, settings.keep),
            OpenRoots(isolation, stopped.is_set),
            compressors,
            ahead,
            stopped,
            bases_of_roots(plans, reuse) if isolation.shares_layers else frozenset(),
        )
        builds = [
            site.begin(
                plan, owners[number], display_names(number, plans, owners), bind_steps, reuse[number] if reuse else None
            )
            for number, plan in enumerate(plans)
        ]
        published, written = published_stages(plans, owners), written_stages(plans, owners)

        def build_one(job: _Build, planned: PlannedStage) -> BuiltStage:
            stage = job.owned(planned.index)
            if stage in published:
                return job.build(planned, layer_written, from_base=True)
            return job.build(planned, _ignore if stage in written else None)

        with settings.interruption.calling(site.stop) if settings.interruption else nullcontext():
            _run_graph(builds, build_one, site.stop, concurrent=isolation.concurrent)
    return [
        {index: _finish(job.results.image(index), job.plan, settings) for index in job.plan.targets} for job in builds
    ]


@dataclass(frozen=True, slots=True)
class _Site:
    """What the builds of all plans share. `shared` are bases that several roots may stand on at no cost."""

    resolve: ResolveImage
    isolation: Isolation
    settings: BuildSettings
    listener: Listener
    indexes: LayerIndexes
    roots: OpenRoots
    compressors: Executor
    ahead: Executor
    stopped: threading.Event
    shared: frozenset[Base]

    def begin(
        self,
        plan: Plan,
        owners: Mapping[int, int],
        names: Mapping[int, str],
        bind_steps: BindSteps,
        reuse: Reuse | None,
    ) -> _Build:
        images = Once[str, ImageFiles]()
        results = Results(lambda name: images.get(name, lambda: self._image_files(name, plan)))
        workshop = Workshop(
            bind_steps(results, self.stopped.is_set),
            self.settings.stage,
            self.listener,
            self.indexes,
            self.roots,
            self.compressors,
            self.settings.blobs,
            self.stopped.is_set,
            names,
            partial(self._fetch_ahead, results),
            self._look_ahead,
            self.shared,
        )
        return _Build(plan, owners, results, workshop, reuse, self)

    def stop(self) -> None:
        """End what still runs, and close the roots."""
        self.stopped.set()
        if self.settings.stopping is not None:
            self.settings.stopping()
        self.roots.close()

    def base_image(self, planned: PlannedStage, results: Results) -> Image:
        match planned.base:
            case ScratchBase():
                return Image(ImageConfig(planned.platform), format=self.settings.image_format or "oci")
            case StageBase(index):
                return results.image(index)
            case ImageBase(reference, platform):
                image = self.resolve(reference, platform)
                compression = self.settings.stage.layer_format.compression
                image_format = self.settings.image_format or ("oci" if compression == "zstd" else image.format)
                # What the base image says of itself is not true of what is made from it.
                return replace(image, format=image_format, annotations={})
        raise NotImplementedError(planned.base)

    def _image_files(self, reference: str, plan: Plan) -> ImageFiles:
        """What COPY and mounts name: always for the target platform; a base may be for another."""
        if reference == SCRATCH:
            image = Image(ImageConfig(plan.stages[0].platform))
        else:
            platforms = {external.reference: external.platform for stage in plan.stages for external in stage.images}
            image = self.resolve(reference, platforms[reference])
        return ImageFiles(lambda: image, self.roots, lambda: self.indexes.tree(image, contents=True))

    def _look_ahead(self, image: Image) -> None:
        """Begin to look into the layers of `image`."""
        if self.isolation.concurrent:  # else nothing may go on beside a RUN
            for layer in image.layers:
                self.ahead.submit(self.indexes.changes, layer, contents=False)

    def _fetch_ahead(self, results: Results, steps: Iterable[Step]) -> None:
        """Begin to fetch the images that `steps` read from; a step that needs one tells what goes wrong with it."""
        if not self.isolation.concurrent:
            return  # nothing may go on beside a RUN
        for step in steps:
            if isinstance(step, CopyStep) and isinstance(step.origin, FromImage):
                self.ahead.submit(lambda origin: results.files(origin).tree(), step.origin)
            if isinstance(step, RunStep):
                for mount in step.mounts:
                    if isinstance(mount, BindMount) and isinstance(mount.origin, FromImage):
                        self.ahead.submit(lambda origin: results.files(origin).directory(), mount.origin)


@dataclass(frozen=True, slots=True)
class _Build:
    """One plan under way. `owners` says which plan builds each stage, by its index: the first that has it."""

    plan: Plan
    owners: Mapping[int, int]
    results: Results
    workshop: Workshop
    reuse: Reuse | None
    site: _Site

    def owned(self, index: int) -> OwnedStage:
        return self.owners[index], index

    def build(
        self, planned: PlannedStage, layer_written: LayerWritten | None, *, from_base: bool = False
    ) -> BuiltStage:
        """Build one stage. `layer_written` None: its layers are written when somebody wants them; with `from_base` it
        is told of the layers of the base image, too."""
        base = self.site.base_image(planned, self.results)
        if from_base and layer_written is not None and not isinstance(planned.base, StageBase):
            for layer in base.layers:
                layer_written(layer)
        cached = self.reuse.stage(planned.index) if self.reuse is not None else None
        planned = replace(planned, display=self.workshop.names[planned.index])
        return build_stage(planned, base, self.workshop, layer_written, cached)


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
        futures: dict[OwnedStage, Future[BuiltStage]] = {}
        for job in builds:
            for planned in job.plan.stages:
                stage = job.owned(planned.index)
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


def _refuse_foreign_programs(plans: Sequence[Plan], reuse: Sequence[Reuse], work_dir: Path) -> None:
    """What starts from scratch is let through: nobody knows what programs COPY brings."""
    runs: dict[Platform, bool] = {}
    for number, plan in enumerate(plans):
        for stage in plan.stages:
            run = first_run(stage, reuse[number] if reuse else None)
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


def _finish(image: Image, plan: Plan, settings: BuildSettings) -> Image:
    config = image.config.with_history_times()
    if not config.created:
        config = replace(config, created=settings.stage.created or "1970-01-01T00:00:00Z")
    return replace(image, config=config, annotations=dict(settings.annotations or {}))


def _ignore(layer: Layer) -> None:
    pass
