"""The layers that a plan will have, with what decides each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from builder.cache import CacheKey
from builder.cache.record import BuildRecord, RecordedStage, RecordedStep, shortened
from builder.plan import Plan, PlannedStage, StageBase
from builder.steps.step import AddStep, CopyStep, FromStage, RunStep, Step, WorkdirStep, origins_of


@dataclass(frozen=True, slots=True)
class ReuseSettings:
    """`ttl` in seconds; `single_snapshot`: each stage makes one layer. `write_meanwhile`: layers are written to the
    cache while the build goes on, otherwise at its end."""

    ttl: float = 336 * 3600.0
    run_layers: bool = True
    copy_layers: bool = False
    write: bool = True
    single_snapshot: bool = False
    write_meanwhile: bool = True


@dataclass(frozen=True, slots=True)
class StepKey:
    """`inputs` is what the step adds to the key of the step before, by the name that people know it by.

    `stages` says which of them stand for a stage, by its index. `through` stands for the files after the step; it is
    another than `key` where the layer does not depend on what is below it, and None where that is not known.
    """

    key: CacheKey
    through: CacheKey | None
    inputs: Mapping[str, str] = field(repr=False)
    stages: Mapping[str, int] = field(default_factory=dict)

    def labelled(self, names: Mapping[int, str]) -> dict[str, str]:
        """`inputs` with the `names` of the stages."""
        return {
            f"{name} (stage {names[self.stages[name]]})" if name in self.stages else name: value
            for name, value in self.inputs.items()
        }


@dataclass(frozen=True, slots=True)
class PlanKeys:
    """`steps` has a key for each step that makes a layer, by stage and step (from 0); none from the first step on
    whose inputs cannot be had. `bases` is what decides the keys of a stage before its first step, `ends` the keys
    that stand for whole stages.
    """

    steps: Mapping[tuple[int, int], StepKey]
    bases: Mapping[int, Mapping[str, str]] = field(repr=False)
    ends: Mapping[int, CacheKey | None]


@dataclass(frozen=True, slots=True)
class LayerUnit:
    """A layer that a stage will have: made after step `number`, which is `step`, of it and of the steps it `covers`.

    `runs`: what it is, no key can tell. `copied` are the stages that COPY reads from. `alone`: what is below it does
    not matter.
    """

    number: int
    step: Step
    covers: range
    runs: bool
    copied: tuple[int, ...]
    cacheable: bool
    key: StepKey | None
    alone: bool


def units_of(stage: PlannedStage, keys: PlanKeys, settings: ReuseSettings) -> list[LayerUnit]:
    """The layers of `stage`, from the lowest."""
    numbers = [number for number, step in enumerate(stage.steps) if makes_layer(step)]
    if not settings.single_snapshot:
        return [_unit_of(stage, number, number, keys, settings) for number in numbers]
    return [_unit_of(stage, numbers[-1], numbers[0], keys, settings)] if numbers else []


def _unit_of(stage: PlannedStage, number: int, first: int, keys: PlanKeys, settings: ReuseSettings) -> LayerUnit:
    steps = [step for step in stage.steps[first : number + 1] if makes_layer(step)]
    copied = tuple(
        step.origin.index for step in steps if isinstance(step, CopyStep) and isinstance(step.origin, FromStage)
    )
    runs = any(isinstance(step, RunStep) for step in steps)
    key = keys.steps.get((stage.index, number))
    if settings.single_snapshot and key is not None:
        key = None if key.through is None else replace(key, key=key.through.extend("all at once"))
    kept = {settings.run_layers if isinstance(step, RunStep | WorkdirStep) else settings.copy_layers for step in steps}
    return LayerUnit(
        number=number,
        step=stage.steps[number],
        covers=range(first, number),
        runs=runs,
        copied=copied,
        # A layer of several steps is kept when any of them would be: that of RUN is what takes the time.
        cacheable=any(kept),
        key=key,
        alone=stands_alone(steps[0]) and not settings.single_snapshot,
    )


def stage_names(plan: Plan) -> dict[int, str]:
    """What records call the stages: their names, which two may share, or else their numbers."""
    taken = [stage.display for stage in plan.stages]
    return {
        stage.index: stage.display if taken.count(stage.display) == 1 else f"{stage.display} ({stage.index})"
        for stage in plan.stages
    }


def record_of(plan: Plan, keys: PlanKeys) -> BuildRecord:
    """What decides the layers of `plan`, to be kept for the next build."""
    stages, names = {}, stage_names(plan)
    for stage in plan.stages:
        base = dict(keys.bases.get(stage.index, {}))
        if isinstance(stage.base, StageBase):
            base[f"stage {names[stage.base.index]}"] = str(keys.ends[stage.base.index])
        steps = []
        for number, step in enumerate(stage.steps):
            if makes_layer(step):
                key = keys.steps.get((stage.index, number))
                inputs = shortened(key.labelled(names)) if key is not None else {}
                name = key.key.value if key is not None else ""
                steps.append(RecordedStep(step.text, name, inputs, stands_alone(step)))
        stages[names[stage.index]] = RecordedStage(shortened(base), tuple(steps))
    return BuildRecord(stages)


def makes_layer(step: Step) -> bool:
    """Whether `step` makes a layer, be it an empty one."""
    return isinstance(step, CopyStep | AddStep | WorkdirStep | RunStep)


def stands_alone(step: Step) -> bool:
    """Whether the layer of `step` does not depend on what is below it: COPY and ADD with `--link`."""
    return isinstance(step, CopyStep | AddStep) and step.link and not step.chmod


def stages_read(step: Step) -> list[int]:
    """The stages that `step` reads files of."""
    return [origin.index for origin in origins_of(step) if isinstance(origin, FromStage)]
