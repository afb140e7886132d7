"""Which stages a build of several plans has: which of them are one, whose layers are wanted, who reads whom.

A stage that is the same in the plans of several platforms belongs to the first plan that has it, its owner.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from builder.plan import Base, ImageBase, Plan, PlannedStage, StageBase
from builder.reuse import Reuse
from builder.steps.step import CopyStep, FromStage, RunStep

OwnedStage = tuple[int, int]  # the number of the plan that builds the stage, and the stage's index


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


def display_names(number: int, plans: Sequence[Plan], owners: Sequence[Mapping[int, int]]) -> dict[int, str]:
    """How each stage of a plan is shown: with the platform, where others have a stage of this name, too."""
    plan, names = plans[number], dict[int, str]()
    for stage in plan.stages:
        differs = len({one[stage.index] for one in owners if stage.index in one}) > 1
        names[stage.index] = f"{stage.display} {plan.platform}" if differs else stage.display
    return names


def published_stages(plans: Sequence[Plan], owners: Sequence[Mapping[int, int]]) -> set[OwnedStage]:
    """The stages whose layers are in the image that is pushed."""
    return {
        (owned[index], index)
        for plan, owned in zip(plans, owners, strict=True)
        for index in _ancestors(plan, plan.targets[0])
    }


def written_stages(plans: Sequence[Plan], owners: Sequence[Mapping[int, int]]) -> set[OwnedStage]:
    """The stages whose layers are written at once: a root that is gone leaves nothing but its layers. Layers that
    nobody reads are not written."""
    found: set[OwnedStage] = set()
    for plan, owned in zip(plans, owners, strict=True):
        ends = [*plan.targets, *(stage.base.index for stage in plan.stages if isinstance(stage.base, StageBase))]
        found |= {(owned[index], index) for end in ends for index in _ancestors(plan, end)}
    return found


def without_unneeded_stages(plan: Plan, reuse: Reuse) -> Plan:
    """`plan` without the stages that only cached steps would read from."""
    return replace(plan, stages=tuple(stage for stage in plan.stages if stage.index in reuse.needed))


def stages_of(plans: Sequence[Plan], reuse: Sequence[Reuse] = ()) -> list[PlannedStage]:
    """The stages that `build` builds: each once, also where several platforms share it."""
    owners, found = owners_of(plans), dict[OwnedStage, PlannedStage]()
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


def bases_of_roots(plans: Sequence[Plan], reuse: Sequence[Reuse]) -> frozenset[Base]:
    """The images that some stage runs something on."""
    found = set[Base]()
    for number, plan in enumerate(plans):
        for stage in plan.stages:
            if isinstance(stage.base, ImageBase) and first_run(stage, reuse[number] if reuse else None):
                found.add(stage.base)
    return frozenset(found)


def first_run(stage: PlannedStage, reuse: Reuse | None) -> RunStep | None:
    """The first RUN of `stage` that is not in the cache."""
    steps = reuse.steps_to_take(stage) if reuse is not None else stage.steps
    return next((step for step in steps if isinstance(step, RunStep)), None)


def _ancestors(plan: Plan, index: int) -> set[int]:
    """The stages whose layers are in the image of stage `index`: itself and what its FROM leads to."""
    found = {index}
    base = plan.stage(index).base
    while isinstance(base, StageBase):
        found.add(base.index)
        base = plan.stage(base.index).base
    return found
