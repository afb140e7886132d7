"""From a Dockerfile and options to a Plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from builder.dockerfile.instructions import Dockerfile
from builder.dockerfile.words import Lexer
from builder.errors import DockerfileError, Location, UsageError
from builder.oci.config import ExecConfig, ImageConfig
from builder.oci.platform import Platform
from builder.plan import checks, notes
from builder.plan.epoch import NAME as EPOCH
from builder.plan.epoch import resolve_epoch
from builder.plan.evaluate import copy_of_context, evaluate_all, from_image, from_scratch, from_stage
from builder.plan.findings import Findings
from builder.plan.global_args import automatic_args, declared_names, global_args
from builder.plan.graph import StageNode, check_references, reach
from builder.plan.remote import is_remote
from builder.plan.scope import Scope, StageState
from builder.plan.stages import DirectoryBase, ResolvedStage, StageTable, resolve_stages
from builder.plan.text import one_line
from builder.plan.values import (
    SCRATCH,
    Base,
    BaseImage,
    ExternalImage,
    ImageBase,
    Plan,
    PlannedStage,
    PlanOptions,
    ResolveBase,
    ResolveTime,
    ScratchBase,
    SkippedStage,
    StageBase,
)
from builder.steps.step import AddStep, BindMount, CopyStep, FromContext, FromImage, FromNamedContext, RunStep, Step

_DEFAULT_HOSTNAME = "buildkitsandbox"


def _no_time(source: str) -> int | None:
    raise UsageError(
        f"{EPOCH}: the time of {source} cannot be asked for here", "give the number of seconds since 1970 instead"
    )


def plan(
    dockerfile: Dockerfile, options: PlanOptions, resolve_base: ResolveBase, resolve_time: ResolveTime = _no_time
) -> Plan:
    """What to build for `options.targets`.

    `resolve_time` is needed only where SOURCE_DATE_EPOCH names a stage; without it that is a UsageError.
    `resolve_base` is called once for each base image that is needed, one after the other; `external_images` tells
    beforehand which those are, so that a caller can fetch them all at once. Raises DockerfileError with the line
    for what the Dockerfile gets wrong, UsageError for the options, and what the two functions raise.
    """
    _check_stages(dockerfile)
    dockerfile = checks.with_build_arg(dockerfile, options.build_args)
    findings = Findings(dockerfile.check, options.ignore_patterns)
    automatic = automatic_args(dockerfile, options)
    findings.report_default_bases(dockerfile, automatic)
    given = global_args(dockerfile, automatic, options.build_args)
    epoch = resolve_epoch(dockerfile, options, given, resolve_time)
    options, args = _with_epoch(options, given, epoch)
    stages = resolve_stages(dockerfile, options, args, declared_names(dockerfile), findings)
    targets = stages.targets()
    check_references(stages)
    nodes = reach(stages, targets, _once(resolve_base))
    scope = Scope(
        options=options,
        lexer=Lexer(dockerfile.escape),
        global_args=args,
        stages=stages,
        epoch=epoch,
        cache_namespace=options.build_args.get(notes.CACHE_NAMESPACE, ""),
        findings=findings,
    )
    planned = _evaluate(nodes, {target.index for target in targets}, scope)
    warnings = checks.of_built_stages(dockerfile.warnings, nodes, planned) + findings.all()
    checks.refuse_if_asked(dockerfile.check, warnings)
    return Plan(
        stages=planned,
        targets=tuple(target.index for target in targets),
        skipped=_skipped(stages, planned, targets),
        warnings=tuple(sorted(warnings, key=lambda warning: warning.location.start)),
        notes=notes.notes(dockerfile, [trigger for node in nodes for trigger in node.triggers], options.build_args),
        epoch=epoch,
        hostname=options.build_args.get(notes.HOSTNAME) or _DEFAULT_HOSTNAME,
    )


def external_images(
    dockerfile: Dockerfile, options: PlanOptions, *, every_stage: bool = False
) -> tuple[ExternalImage, ...]:
    """The images from outside that are known before anything is fetched: bases, and what COPY and mounts read.

    Of the stages that the targets need, or with `every_stage` of all. What a trigger of a base image reads is
    missing. Raises what `plan` raises for the same reasons.
    """
    _check_stages(dockerfile)
    args = global_args(dockerfile, automatic_args(dockerfile, options), options.build_args)
    stages = resolve_stages(dockerfile, options, args, declared_names(dockerfile), Findings(dockerfile.check))
    check_references(stages)
    found: dict[ExternalImage, None] = {}

    def note(reference: str, platform: Platform) -> BaseImage:
        found[ExternalImage(reference, platform)] = None
        return BaseImage(ImageConfig(platform))

    for node in reach(stages, tuple(stages.stages) if every_stage else stages.targets(), note):
        found.update(dict.fromkeys(_images_read(node, options)))
    return tuple(found)


def _check_stages(dockerfile: Dockerfile) -> None:
    if not dockerfile.stages:
        raise DockerfileError(
            "the Dockerfile has no stage to build", "write FROM", location=Location(dockerfile.path, 1, 1)
        )


def _once(resolve_base: ResolveBase) -> ResolveBase:
    """`resolve_base`, asked only once for each image."""
    known: dict[ExternalImage, BaseImage] = {}

    def resolve(reference: str, platform: Platform) -> BaseImage:
        image = ExternalImage(reference, platform)
        if image not in known:
            known[image] = resolve_base(reference, platform)
        return known[image]

    return resolve


def _with_epoch(
    options: PlanOptions, args: Mapping[str, str], epoch: int | None
) -> tuple[PlanOptions, Mapping[str, str]]:
    """SOURCE_DATE_EPOCH as a number wherever it was given, so that ARGs have it so."""
    text = "" if epoch is None else str(epoch)
    if EPOCH in options.build_args:
        options = replace(options, build_args={**options.build_args, EPOCH: text})
    return options, {**args, EPOCH: text} if EPOCH in args else args


def _evaluate(nodes: tuple[StageNode, ...], targets: set[int], scope: Scope) -> tuple[PlannedStage, ...]:
    states: dict[int, StageState] = {}
    planned = []
    for node in nodes:
        start = _start(node, states, scope)
        state, steps = evaluate_all(node.commands, start, scope)
        states[node.resolved.index] = state
        stage = _planned(node, start, state, (*_contents(node, start), *steps), scope.options)
        planned.append(_finished(stage, scope.options) if stage.index in targets else stage)
    return tuple(planned)


def _start(node: StageNode, states: Mapping[int, StageState], scope: Scope) -> StageState:
    """The stage's state before its first instruction."""
    match node.resolved.source:
        case StageBase(index):
            return from_stage(states[index])
        case ExternalImage(_, platform):
            assert node.image is not None
            if not node.resolved.replaced:
                scope.findings.report_base_platform(node.resolved.stage, platform, node.image.platform)
            return from_image(node.image)
        case DirectoryBase() if node.resolved.replaced:
            # The context takes the stage's place with its files only: an image without any configuration.
            return StageState(config=ExecConfig(), env={}, platform=scope.options.platform)
        case _:
            return from_scratch(scope.options.platform)


def _contents(node: StageNode, start: StageState) -> tuple[Step, ...]:
    """The step that fills a stage whose base is a directory."""
    if isinstance(node.resolved.source, DirectoryBase):
        return (copy_of_context(node.resolved.source.context, node.resolved, start.config),)
    return ()


def _planned(
    node: StageNode, start: StageState, state: StageState, steps: tuple[Step, ...], options: PlanOptions
) -> PlannedStage:
    stage = node.resolved.stage
    contexts = {origin.name for origin in node.origins if isinstance(origin, FromNamedContext)}
    if isinstance(node.resolved.source, DirectoryBase):
        contexts.add(node.resolved.source.context)
    return PlannedStage(
        index=node.resolved.index,
        name=stage.name,
        display=node.resolved.display,
        base_name=node.resolved.written,
        text=one_line(stage.code),
        location=stage.location,
        base=_base(node),
        platform=state.platform,
        start=start.config,
        steps=steps,
        final=state.config,
        author=state.author,
        dependencies=node.dependencies,
        images=_images_read(node, options),
        contexts=tuple(sorted(contexts)),
        uses_context=any(map(_uses_context, steps)),
    )


def _base(node: StageNode) -> Base:
    match node.resolved.source:
        case StageBase():
            return node.resolved.source
        case ExternalImage(reference, platform):
            assert node.image is not None
            return ImageBase(reference, platform, node.image)
        case _:
            return ScratchBase()


def _finished(stage: PlannedStage, options: PlanOptions) -> PlannedStage:
    """A target: with the command line's labels, and for the platform that it asks for."""
    final = replace(stage.final, labels={**stage.final.labels, **options.labels}) if options.labels else stage.final
    return replace(stage, final=final, platform=options.target_platform or stage.platform)


def _images_read(node: StageNode, options: PlanOptions) -> tuple[ExternalImage, ...]:
    """What COPY and mounts read; always for the target platform, whatever the stage's own."""
    return tuple(
        ExternalImage(origin.reference, options.platform)
        for origin in node.origins
        if isinstance(origin, FromImage) and origin.reference != SCRATCH
    )


def _uses_context(step: Step) -> bool:
    match step:
        case CopyStep():
            return isinstance(step.origin, FromContext) and bool(step.sources)
        case AddStep():
            return any(not is_remote(source, step.location) for source in step.sources)
        case RunStep():
            return any(isinstance(mount, BindMount) and mount.origin == FromContext() for mount in step.mounts)
    return False


def _skipped(
    stages: StageTable, planned: tuple[PlannedStage, ...], targets: tuple[ResolvedStage, ...]
) -> tuple[SkippedStage, ...]:
    built = {stage.index for stage in planned}
    wanted = " or ".join(target.display for target in targets)
    return tuple(
        SkippedStage(
            index=stage.index,
            display=stage.display,
            reason=f"target {wanted} does not need it",
            location=stage.stage.location,
        )
        for stage in stages.stages
        if stage.index not in built
    )
