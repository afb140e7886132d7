"""Carry out one planned stage, instruction by instruction.

A stage starts as an image value. Its files are looked at only when a step needs them: COPY and WORKDIR read the
index of the layers, RUN needs a root. Layers are compressed in the background while later steps run.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from builder.cache import Entry
from builder.errors import BuildError, CommandFailed, IsolationError
from builder.events import (
    Listener,
    Message,
    SnapshotStarted,
    StageFinished,
    StageStarted,
    StepFinished,
    StepOutput,
    StepStarted,
    worked,
)
from builder.files import ImageFiles, LayerIndexes, OpenRoots
from builder.layer.format import LayerFormat
from builder.layer.leave_out import leave_out
from builder.layer.squash import squash
from builder.oci.config import History
from builder.oci.image import Image, Layer
from builder.plan import Base, PlannedStage, StageBase
from builder.reuse import StageReuse, makes_layer, no_reuse
from builder.rootfs.entry import Change
from builder.rootfs.layered import LayeredTree
from builder.rootfs.tree import Tree
from builder.steps.ignored_paths import ignored_paths
from builder.steps.step import (
    AddStep,
    ConfigStep,
    CopyStep,
    FromImage,
    FromStage,
    MaintainerStep,
    RunStep,
    Step,
    WorkdirStep,
)
from builder.stopping import check_wanted

if TYPE_CHECKING:
    from builder.isolation import Process, Root


class StepWork(Protocol):
    """What instructions do, bound to this build's contexts, stages, images and secrets."""

    def wait(self, step: Step) -> None:
        """Return when the stages whose files `step` reads are finished. Raises what they raised."""
        ...

    def copy(self, step: CopyStep, destination: Tree) -> list[Change]:
        """The changes that COPY makes to `destination`."""
        ...

    def add(self, step: AddStep, destination: Tree) -> list[Change]:
        """The changes that ADD makes."""
        ...

    def workdir(self, step: WorkdirStep, destination: Tree) -> list[Change]:
        """The changes that WORKDIR makes."""
        ...

    def process(self, step: RunStep, root: Tree, output: Callable[[bytes], None]) -> AbstractContextManager[Process]:
        """RUN as a process; its mounts exist inside the context."""
        ...


@dataclass(frozen=True, slots=True)
class StageSettings:
    """`created` is the RFC 3339 time of new layers, None for the time when each is made. What is below `ignore_paths`
    does not become part of a layer (see builder.steps.ignored_paths)."""

    layer_format: LayerFormat
    single_snapshot: bool = False
    created: str | None = None
    ignore_paths: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Workshop:
    """What all stages of a build share. `names` says how each stage is shown, by its index.

    `shared` are bases that some stage of the build will have a root on, where a second root costs next to nothing.
    `fetch_ahead` begins to fetch what the steps that it is given will read, `look_ahead` to look into the layers of an
    image; they return at once and never raise.
    """

    work: StepWork
    settings: StageSettings
    listener: Listener
    indexes: LayerIndexes
    roots: OpenRoots
    compressors: Executor
    blobs: Path
    stopped: Callable[[], bool]
    names: Mapping[int, str]
    fetch_ahead: Callable[[Sequence[Step]], None]
    look_ahead: Callable[[Image], None]
    shared: frozenset[Base] = frozenset()

    def go_on(self) -> None:
        """Raise BuildError when the build was stopped."""
        check_wanted(self.stopped)


class BuiltStage:
    """A finished stage. Layers that nobody asked for yet are written when `image` is."""

    def __init__(self, settle: Callable[[], Image], files: ImageFiles) -> None:
        self._settle = settle
        self.files = files

    @property
    def image(self) -> Image:
        """The stage's image. Raises what writing its layers raises."""
        return self._settle()


class Results:
    """What steps read from: finished stages and images. Asking for a stage waits for it."""

    def __init__(self, images: Callable[[str], ImageFiles]) -> None:
        self._images = images
        self._stages: dict[int, Future[BuiltStage]] = {}

    def add(self, index: int, stage: Future[BuiltStage]) -> None:
        """The stage `index` is under way. All stages are added before the first starts."""
        self._stages[index] = stage

    def image(self, index: int) -> Image:
        """The image of stage `index`. Raises what the stage raised."""
        return self._stages[index].result().image

    def files(self, origin: FromStage | FromImage) -> ImageFiles:
        """The files of a stage or of an image. Raises what the stage raised."""
        if isinstance(origin, FromStage):
            return self._stages[origin.index].result().files
        return self._images(origin.reference)


def build_stage(
    planned: PlannedStage,
    base: Image,
    workshop: Workshop,
    layer_written: Callable[[Layer], None] | None,
    reuse: StageReuse | None = None,
) -> BuiltStage:
    """Carry out every step of `planned` on top of `base`, but for those whose layers `reuse` has.

    `layer_written` is told of each layer when its digest is known; None: nobody waits for the layers, so they are
    written only if somebody asks. Raises CommandFailed for a RUN that failed, other BuildErrors for anything else
    that cannot be done.
    """
    return _Builder(planned, base, workshop, layer_written, reuse or no_reuse()).build()


class _LayerOnDemand:
    """A layer that is written when it is asked for, or has been started before."""

    def __init__(self, compressors: Executor, write: Callable[[], Layer]) -> None:
        self._compressors = compressors
        self._write = write
        self._lock = threading.Lock()
        self._future: Future[Layer] | None = None

    def start(self) -> Future[Layer]:
        """Begin to write, unless that was done before."""
        with self._lock:
            if self._future is None:
                self._future = self._compressors.submit(self._write)
            return self._future


class _Builder:
    """One stage under way; used by one thread."""

    def __init__(
        self,
        planned: PlannedStage,
        base: Image,
        workshop: Workshop,
        layer_written: Callable[[Layer], None] | None,
        reuse: StageReuse,
    ) -> None:
        self._planned = planned
        self._reuse = reuse
        self._shop = workshop
        self._layer_written = layer_written
        self._base = base
        self._image = replace(base, config=replace(base.config, exec=planned.start, platform=planned.platform))
        # What happened to the image since: applied in order once the layers' digests are known.
        self._pending: list[Callable[[Image], Image]] = []
        self._lock = threading.Lock()
        self._root: Root | None = None
        self._tree: LayeredTree | None = None
        # What COPY and the like did and what the cache had, as long as there is no root; the tree has the first ones.
        self._changes: list[list[Change] | Layer] = []
        self._in_tree = 0
        self._behind: list[Layer] = []  # what the cache had since there is a root, and is not in it yet
        self._unsnapped: list[list[Change]] = []

    def build(self) -> BuiltStage:
        planned, tell = self._planned, self._shop.listener.tell
        started = time.monotonic()
        base_index = planned.base.index if isinstance(planned.base, StageBase) else -1
        tell(StageStarted(planned.display, planned.base_name, len(planned.steps), planned.index, base_index))
        last_layer = max((n for n, step in enumerate(planned.steps) if makes_layer(step)), default=-1)
        first_own = max(self._reuse.hits.keys() - self._reuse.alone, default=-1) + 1
        for number, step in enumerate(planned.steps):
            if number == first_own:
                own = [later for n, later in enumerate(planned.steps) if n >= number and n not in self._reuse.hits]
                self._shop.fetch_ahead(own)
                self._prepare_root(own)
                if self._root is None and any(map(makes_layer, own)):
                    self._shop.look_ahead(self._base)  # also while the first of them waits for another stage
            self._take(number, step, snapshot=not self._shop.settings.single_snapshot or number == last_layer)
        self._pending.append(self._finish)
        tell(StageFinished(planned.display, time.monotonic() - started))
        return BuiltStage(self._settle, self._files())

    def _prepare_root(self, steps: Sequence[Step]) -> None:
        """Open a root if one of `steps`, all that are left to take, is a RUN.

        It is needed sooner or later: COPY onto a root costs less than unpacking what COPY wrote. Where another stage
        unpacks the same base, a root also costs less than reading the base's layers a second time.
        """
        first_run = next((step for step in steps if isinstance(step, RunStep)), None)
        if first_run is None and self._planned.base in self._shop.shared and any(map(makes_layer, steps)):
            self._open_root()
            return
        if first_run is None:
            self._shop.listener.tell(Message("Skipping unpacking as no commands require it."))
            return
        self._shop.listener.tell(Message(f"Unpacking rootfs as cmd {first_run.text} requires it."))
        try:
            self._open_root()
        except BuildError as error:
            # The base is what FROM names; that there is no place to run in concerns RUN.
            at = first_run if isinstance(error, IsolationError) else self._planned
            error.location = error.location or at.location
            raise

    def _finish(self, image: Image) -> Image:
        config = replace(image.config, exec=self._planned.final, author=self._planned.author or image.config.author)
        return replace(image, config=config)

    def _take(self, number: int, step: Step, *, snapshot: bool) -> None:
        self._shop.go_on()
        stage, total, tell = self._planned.display, len(self._planned.steps), self._shop.listener.tell
        reused = number in self._reuse.hits or number in self._reuse.covered
        if not reused:
            self._shop.work.wait(step)  # time that other stages need is not this step's
        tell(StepStarted(stage, number + 1, total, step.text))
        started = time.monotonic()
        if reused:
            layer = self._take_over(step, self._reuse.hits.get(number))
            digest, size = (layer.descriptor.digest, layer.descriptor.size) if layer else ("", None)
            tell(StepFinished(stage, number + 1, time.monotonic() - started, True, digest, size))
            return
        with _located(step):
            making = self._carry_out(number, step, snapshot)
        reason = self._reuse.reasons.get(number, "")

        def finished(done: Future[Layer] | None) -> None:
            seconds = time.monotonic() - started
            if done is None:
                tell(StepFinished(stage, number + 1, seconds, reason=reason))
            elif not done.cancelled() and done.exception() is None:
                descriptor = done.result().descriptor
                tell(StepFinished(stage, number + 1, seconds, False, descriptor.digest, descriptor.size, reason))
                if self._layer_written is not None:
                    self._layer_written(done.result())

        if making is None:
            finished(None)
        else:
            making.add_done_callback(finished)

    def _take_over(self, step: Step, entry: Entry | None) -> Layer | None:
        """Append the layer of the cache; None: a later one has what this step does."""
        if entry is None:
            self._configure(step)
            return None
        layer, created = entry.layer, self._shop.settings.created or entry.created
        history = replace(step.history or History(created_by=step.text), created=created)
        self._pending.append(lambda image: image.append(layer, history).configure(step.exec_config))
        (self._changes if self._root is None else self._behind).append(layer)
        if self._layer_written is not None:
            self._layer_written(layer)
        return layer

    def _carry_out(self, number: int, step: Step, snapshot: bool) -> Future[Layer] | None:
        match step:
            case MaintainerStep():
                self._configure(step)
                return None
            case ConfigStep():
                self._configure(step)
                return None
            case CopyStep():
                changes = self._shop.work.copy(step, self._destination())
            case AddStep():
                changes = self._shop.work.add(step, self._destination())
            case WorkdirStep():
                changes = self._shop.work.workdir(step, self._destination())
            case RunStep():
                return self._run(number, step, snapshot)
            case _:
                raise NotImplementedError(type(step))
        self._apply(changes)
        self._unsnapped.append(changes)
        return self._finish_step(number, step, snapshot)

    def _run(self, number: int, step: RunStep, snapshot: bool) -> Future[Layer] | None:
        root = self._open_root()
        tell, stage = self._shop.listener.tell, self._planned.display
        with (
            self._shop.work.process(
                step, root.tree(), lambda data: tell(StepOutput(stage, number + 1, data))
            ) as process,
            worked(self._shop.listener, "run", step.text, stage),
        ):
            root.run(process)
        return self._finish_step(number, step, snapshot)

    def _finish_step(self, number: int, step: Step, snapshot: bool) -> Future[Layer] | None:
        if snapshot:
            return self._snapshot(number, step)
        self._configure(step)
        return None

    def _snapshot(self, number: int, step: Step) -> Future[Layer] | None:
        """Make one layer of everything since the last snapshot."""
        layers, self._unsnapped = self._unsnapped, []
        ran = self._root is not None and (isinstance(step, RunStep) or self._shop.settings.single_snapshot)
        everywhere = self._root is not None and ran and self._root.looks_everywhere
        self._shop.listener.tell(SnapshotStarted(self._planned.display, number + 1, everywhere))
        if self._root is not None and ran:
            with worked(self._shop.listener, "snapshot", step.text, self._planned.display):
                layers.append(list(self._root.commit()))
        changes = layers[0] if len(layers) == 1 else squash(layers)
        if self._shop.settings.ignore_paths:
            changes = leave_out(changes, ignored_paths(self._shop.settings.ignore_paths))
        shop = self._shop

        def write() -> Layer:
            from builder.layer.writer import write_layer  # a build that is cached writes none

            with worked(shop.listener, "compress", step.text, self._planned.display):
                return write_layer(changes, shop.blobs, shop.settings.layer_format, go_on=shop.go_on)

        layer = _LayerOnDemand(shop.compressors, write)
        now = _now()
        history = replace(step.history or History(created_by=step.text), created=shop.settings.created or now)
        self._pending.append(lambda image: image.append(layer.start().result(), history).configure(step.exec_config))
        kept = number in self._reuse.wants
        if self._layer_written is None and not kept:
            return None
        future = layer.start()
        if kept:
            self._reuse.made(number, future, now)
        if self._root is not None and not shop.roots.isolation.concurrent:
            future.result()  # nothing may go on beside the next RUN
        return future

    def _configure(self, step: Step) -> None:
        history = step.history
        if history is not None:
            history = replace(history, empty_layer=True)
        self._pending.append(lambda image: image.configure(step.exec_config, history))

    def _settle(self) -> Image:
        """The image with everything done so far; waits for layers that are being written."""
        with self._lock:
            while self._pending:
                self._image = self._pending[0](self._image)
                del self._pending[0]
            return self._image

    def _open_root(self) -> Root:
        if self._root is None:
            with worked(self._shop.listener, "root", "open the root", self._planned.display):
                self._root = self._shop.roots.open(self._settle())
            self._tree = None
        for layer in self._behind:
            self._root.apply(self._changes_of(layer, contents=True))
        self._behind = []
        return self._root

    def _destination(self) -> Tree:
        """The files of the stage, to look things up in; contents are not needed."""
        if self._root is not None:
            return self._open_root().tree()
        if self._tree is None:
            self._tree = self._shop.indexes.tree(self._base, contents=False)
        for changes in self._changes[self._in_tree :]:
            self._tree = self._tree.apply(self._changes_of(changes, contents=False))
        self._in_tree = len(self._changes)
        return self._tree

    def _changes_of(self, changes: list[Change] | Layer, *, contents: bool) -> list[Change]:
        return self._shop.indexes.changes(changes, contents=contents) if isinstance(changes, Layer) else changes

    def _apply(self, changes: list[Change]) -> None:
        if self._root is not None:
            self._root.apply(changes)
            return
        self._changes.append(changes)

    def _files(self) -> ImageFiles:
        shop = self._shop
        if self._root is not None and not self._behind:
            return ImageFiles(self._settle, shop.roots, self._root.tree, self._root)
        if self._root is not None:
            return ImageFiles(self._settle, shop.roots, lambda: shop.indexes.tree(self._settle(), contents=True))
        return ImageFiles(self._settle, shop.roots, self._rootless_tree)

    def _rootless_tree(self) -> Tree:
        tree = self._shop.indexes.tree(self._base, contents=True)
        for changes in self._changes:
            tree = tree.apply(self._changes_of(changes, contents=True))
        return tree


def _now() -> str:
    nanoseconds = time.time_ns()
    seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(nanoseconds // 10**9))
    return f"{seconds}.{nanoseconds % 10**9:09d}Z"


@contextmanager
def _located(step: Step) -> Iterator[None]:
    """Errors of a step say where the step stands in the Dockerfile."""
    try:
        yield
    except CommandFailed as error:
        raise CommandFailed(
            f"{step.text}: {error.message}", error.hint, code=error.code, location=step.location
        ) from error
    except BuildError as error:
        if error.location is None:
            error.location = step.location
        raise
