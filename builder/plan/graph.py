"""The stages that the targets need, triggers of base images included, in an order in which they can be built."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from builder.dockerfile import parse_instruction
from builder.dockerfile.instructions import Instruction
from builder.errors import BuildError, DockerfileError
from builder.oci.config import ImageConfig
from builder.plan.stages import ResolvedStage, StageTable, sources_of, triggers_of
from builder.plan.values import ExternalImage, ResolveBase, StageBase
from builder.steps.step import FromStage, Origin


@dataclass(frozen=True, slots=True, kw_only=True)
class StageNode:
    """A stage that is needed. `triggers` come from its base and run before its own commands."""

    resolved: ResolvedStage
    image: ImageConfig | None  # of a base that comes from outside
    triggers: tuple[Instruction, ...]
    origins: tuple[Origin, ...]  # what COPY and mounts read, the context aside

    @property
    def commands(self) -> tuple[Instruction, ...]:
        return (*self.triggers, *self.resolved.commands)

    @property
    def dependencies(self) -> tuple[int, ...]:
        """Indexes of the stages that come before this one, each once, sorted."""
        found = {origin.index for origin in self.origins if isinstance(origin, FromStage)}
        if isinstance(self.resolved.source, StageBase):
            found.add(self.resolved.source.index)
        return tuple(sorted(found))


def origins_of(commands: Iterable[Instruction], stages: StageTable) -> tuple[Origin, ...]:
    """What `commands` read from besides the context, each once. Raises DockerfileError for a name that is nothing."""
    found = {
        stages.origin(name, instruction.location, index_allowed=index_allowed): None
        for instruction in commands
        for name, index_allowed in sources_of(instruction)
    }
    return tuple(found)


def reach(stages: StageTable, targets: Sequence[ResolvedStage], resolve_base: ResolveBase) -> tuple[StageNode, ...]:
    """What `targets` need, in the order of the Dockerfile as far as dependencies allow.

    Configurations are fetched for needed stages only. Raises DockerfileError for a cycle, and for a stage that is
    read before it is defined.
    """
    nodes: dict[int, StageNode] = {}
    waiting = [target.index for target in targets]
    while waiting:
        index = waiting.pop()
        if index in nodes:
            continue
        nodes[index] = _node(stages.stages[index], stages, resolve_base)
        waiting.extend(nodes[index].dependencies)
    order = _sorted({index: node.dependencies for index, node in nodes.items()}, stages)
    return tuple(nodes[index] for index in order)


def check_references(stages: StageTable) -> None:
    """Every name that any stage reads from means something, and no stages read from each other in a circle."""
    dependencies: dict[int, tuple[int, ...]] = {}
    for stage in stages.stages:
        origins = origins_of(stage.commands, stages)
        dependencies[stage.index] = tuple(origin.index for origin in origins if isinstance(origin, FromStage))
    _sorted(dependencies, stages)


def _node(resolved: ResolvedStage, stages: StageTable, resolve_base: ResolveBase) -> StageNode:
    _check_order(resolved, stages)
    image = None
    expressions: tuple[str, ...] = ()
    if isinstance(resolved.source, ExternalImage):
        try:
            image = _config(resolved.source, resolve_base)
        except BuildError as error:
            error.location = error.location or resolved.stage.location
            raise
        expressions = () if resolved.replaced else image.exec.on_build
    elif isinstance(resolved.source, StageBase):
        expressions = _inherited_triggers(stages.stages[resolved.source.index], resolve_base)
    triggers = tuple(_trigger(expression, resolved) for expression in expressions)
    return StageNode(
        resolved=resolved,
        image=image,
        triggers=triggers,
        origins=origins_of((*triggers, *resolved.commands), stages),
    )


def _trigger(expression: str, resolved: ResolvedStage) -> Instruction:
    """The instruction of an ONBUILD, placed at the FROM that sets it off."""
    instruction = parse_instruction(expression, resolved.stage.location)
    return replace(instruction, code=f"ONBUILD {instruction.code}", check=resolved.stage.check)


def _inherited_triggers(base: ResolvedStage, resolve_base: ResolveBase) -> tuple[str, ...]:
    """A stage's own ONBUILDs; those of the image that a named context put in its place."""
    if base.replaced and isinstance(base.source, ExternalImage):
        return _config(base.source, resolve_base).exec.on_build
    return triggers_of(base)


def _config(image: ExternalImage, resolve_base: ResolveBase) -> ImageConfig:
    return resolve_base(image.reference, image.platform).config


def _check_order(resolved: ResolvedStage, stages: StageTable) -> None:
    """COPY and mounts of the Dockerfile itself read earlier stages only."""
    for instruction in resolved.commands:
        for name, index_allowed in sources_of(instruction):
            origin = stages.origin(name, instruction.location, index_allowed=index_allowed)
            if isinstance(origin, FromStage) and origin.index > resolved.index:
                raise DockerfileError(
                    f"stage {name!r} is used before it is defined",
                    f"move it above stage {resolved.display!r}",
                    location=instruction.location,
                )


def _sorted(dependencies: Mapping[int, Iterable[int]], stages: StageTable) -> list[int]:
    """Indexes so that each comes after its dependencies, smallest first. Raises DockerfileError for a cycle."""
    waiting = {index: set(needed) for index, needed in dependencies.items()}
    order: list[int] = []
    while waiting:
        ready = [index for index, needed in waiting.items() if not needed & waiting.keys()]
        if not ready:
            raise _cycle(waiting, stages)
        order.append(min(ready))
        del waiting[min(ready)]
    return order


def _cycle(waiting: Mapping[int, set[int]], stages: StageTable) -> DockerfileError:
    path = [min(waiting)]
    while path[-1] not in path[:-1]:
        path.append(min(waiting[path[-1]] & waiting.keys()))
    circle = path[path.index(path[-1]) :]
    names = " -> ".join(stages.stages[index].display for index in circle)
    return DockerfileError(
        f"stages need each other in a circle: {names}", location=stages.stages[circle[0]].stage.location
    )
