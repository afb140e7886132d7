"""The instructions' work, bound to one build: where sources come from, and where things are put meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from builder.rootfs.entry import Change
from builder.rootfs.tree import Tree
from builder.stage import Results
from builder.steps.cache_mounts import CacheMounts
from builder.steps.context import ContextTree
from builder.steps.copy import CopySettings, copy_changes
from builder.steps.download import Downloads
from builder.steps.mounts import MountPreparer, Secrets
from builder.steps.step import (
    AddStep,
    CopyStep,
    FromContext,
    FromImage,
    FromNamedContext,
    FromStage,
    Origin,
    RunStep,
    Step,
    WorkdirStep,
    origins_of,
)

if TYPE_CHECKING:
    from builder.isolation import Process
    from builder.steps.add import FetchGit


@dataclass(frozen=True, slots=True)
class Inputs:
    """What the user gave. `created` is the time of directories that COPY and WORKDIR make, in nanoseconds.

    `stopped` says that the build ends: long work is given up.
    """

    context: ContextTree
    named: Mapping[str, ContextTree]
    secrets: Secrets
    fetch_git: FetchGit
    caches: CacheMounts
    created: int
    hostname: str
    work_dir: Path
    downloads: Downloads | None = None
    unknown_owners_are_root: bool = False  # see builder.steps.copy.CopySettings
    stopped: Callable[[], bool] = lambda: False


class StepWorkOf:
    """builder.stage.StepWork over `inputs` and the results of the other stages. Thread-safe."""

    def __init__(self, inputs: Inputs, results: Results) -> None:
        self._inputs = inputs
        self._results = results
        self._settings = CopySettings(inputs.created, unknown_owners_are_root=inputs.unknown_owners_are_root)
        self._preparer = MountPreparer(
            self._context, self._directory, inputs.secrets, inputs.caches, inputs.work_dir, inputs.stopped
        )

    def wait(self, step: Step) -> None:
        """Return when the stages whose files `step` reads are finished. Raises what they raised."""
        for origin in origins_of(step):
            if isinstance(origin, FromStage):
                self._results.files(origin)

    def copy(self, step: CopyStep, destination: Tree) -> list[Change]:
        """See builder.steps.copy.copy_changes."""
        source, place = self._source(step.origin)
        return copy_changes(step, source, destination, self._settings, place)

    def add(self, step: AddStep, destination: Tree) -> list[Change]:
        """See builder.steps.add.add_changes."""
        from builder.steps.add import AddSettings, add_changes

        settings = AddSettings(self._inputs.work_dir, self._inputs.fetch_git, self._inputs.downloads)
        return add_changes(step, self._inputs.context, destination, self._settings, settings)

    def workdir(self, step: WorkdirStep, destination: Tree) -> list[Change]:
        """See builder.steps.workdir.workdir_changes."""
        from builder.steps.workdir import workdir_changes

        return workdir_changes(step, destination, self._inputs.created)

    @contextmanager
    def process(self, step: RunStep, root: Tree, output: Callable[[bytes], None]) -> Iterator[Process]:
        """See builder.steps.run.run_process."""
        from builder.steps.run import run_process

        with run_process(step, root, self._preparer, output) as process:
            yield replace(process, hostname=self._inputs.hostname)

    def _source(self, origin: Origin) -> tuple[Tree, str]:
        """The tree that COPY reads from, and what errors call it."""
        match origin:
            case FromContext():
                return self._inputs.context, "the build context"
            case FromNamedContext(name):
                return self._inputs.named[name], f"the context {name}"
            case FromStage():
                return self._results.files(origin).tree(), "the stage"
            case FromImage(reference):
                return self._results.files(origin).tree(), reference
        raise NotImplementedError(origin)

    def _context(self, origin: FromContext | FromNamedContext) -> ContextTree:
        return self._inputs.context if isinstance(origin, FromContext) else self._inputs.named[origin.name]

    def _directory(self, origin: FromStage | FromImage) -> Path:
        return self._results.files(origin).directory()
