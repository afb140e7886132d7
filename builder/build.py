"""Carry out a plan: its stages as a graph, side by side where the isolation allows.

A stage starts at once and waits for another stage only when a step of it reads that stage's files.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path

from builder.events import Listener
from builder.files import ImageFiles, LayerIndexes, OpenRoots
from builder.isolation import Isolation
from builder.oci.config import ImageConfig
from builder.oci.image import Image, Layer
from builder.oci.media_types import ImageFormat
from builder.oci.platform import Platform
from builder.plan import SCRATCH, ImageBase, Plan, PlannedStage, ScratchBase, StageBase
from builder.stage import BuiltStage, Results, StageSettings, StepWork, Workshop, build_stage

ResolveImage = Callable[[str, Platform], Image]
LayerWritten = Callable[[Layer], None]


@dataclass(frozen=True, slots=True)
class BuildSettings:
    """`image_format` None: the base image's, and OCI for what starts from scratch."""

    work_dir: Path
    stage: StageSettings
    image_format: ImageFormat | None = None
    annotations: Mapping[str, str] | None = None


def build(
    plan: Plan,
    resolve: ResolveImage,
    bind_steps: Callable[[Results], StepWork],
    isolation: Isolation,
    settings: BuildSettings,
    listener: Listener,
    layer_written: LayerWritten = lambda layer: None,
) -> dict[int, Image]:
    """Build every stage of `plan`; the targets' images, finished but for being written somewhere, by stage index.

    `layer_written` is told of every layer of the first target as soon as it is finished, base layers included.
    Their blobs lie in the work directory: they last as long as that. On return no process runs and no root is open.
    Raises the first stage's error; the other stages are stopped.
    """
    stopped = threading.Event()
    indexes, roots = LayerIndexes(settings.work_dir), OpenRoots(isolation)
    blobs = settings.work_dir / "blobs"
    blobs.mkdir(exist_ok=True)
    # What COPY and mounts name is always for the target platform; a base may be for another.
    platforms = {external.reference: external.platform for stage in plan.stages for external in stage.images}

    def image_files(reference: str) -> ImageFiles:
        if reference == SCRATCH:
            image = Image(ImageConfig(plan.stages[0].platform))
        else:
            image = resolve(reference, platforms[reference])
        return ImageFiles(lambda: image, roots, lambda: indexes.tree(image, contents=True))

    results = Results(_memoised(image_files))
    published = _ancestors(plan, plan.targets[0])
    # Layers that nobody reads are not written. A root that is gone leaves nothing but its layers.
    written = {
        index for stage in plan.stages if isinstance(stage.base, StageBase) for index in _ancestors(plan, stage.index)
    }
    written |= {index for target in plan.targets for index in _ancestors(plan, target)}
    with ThreadPoolExecutor(max_workers=os.cpu_count(), thread_name_prefix="compress") as compressors:
        names = {stage.index: stage.display for stage in plan.stages}
        workshop = Workshop(
            bind_steps(results), settings.stage, listener, indexes, roots, compressors, blobs, stopped.is_set, names
        )

        def build_one(planned: PlannedStage) -> BuiltStage:
            base = _base_image(planned, resolve, results, settings)
            if planned.index not in published:
                needed = planned.index in written or not isolation.concurrent
                return build_stage(planned, base, workshop, _ignore if needed else None)
            if not isinstance(planned.base, StageBase):
                for layer in base.layers:
                    layer_written(layer)
            return build_stage(planned, base, workshop, layer_written)

        def stop() -> None:
            stopped.set()
            roots.close()

        _run_graph(plan, build_one, results, stop, concurrent=isolation.concurrent)
    return {index: _finish(results.image(index), plan, settings) for index in plan.targets}


def _run_graph(
    plan: Plan,
    build_one: Callable[[PlannedStage], BuiltStage],
    results: Results,
    stop: Callable[[], None],
    *,
    concurrent: bool,
) -> None:
    """Run all stages to their end, or to the first error, which is raised once `stop` has ended the others."""
    workers = len(plan.stages) if concurrent else 1
    with ThreadPoolExecutor(max_workers=workers, thread_name_prefix="stage") as pool:
        gate = threading.Event()

        def start(planned: PlannedStage) -> BuiltStage:
            gate.wait()
            return build_one(planned)

        # `plan.stages` is in build order: a single worker never waits for a stage that has not run.
        futures = {planned.index: pool.submit(start, planned) for planned in plan.stages}
        for index, future in futures.items():
            results.add(index, future)
        gate.set()
        try:
            done, _ = wait(futures.values(), return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
            for index in plan.targets:
                results.image(index)  # its last layers are written from roots that are open until here
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            stop()


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


def _memoised(make: Callable[[str], ImageFiles]) -> Callable[[str], ImageFiles]:
    lock, made = threading.Lock(), dict[str, ImageFiles]()

    def get(reference: str) -> ImageFiles:
        with lock:
            if reference not in made:
                made[reference] = make(reference)
            return made[reference]

    return get


def _ignore(layer: Layer) -> None:
    pass
