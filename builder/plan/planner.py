"""From a Dockerfile and options to a Plan."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from builder.dockerfile.check_directive import parse_check
from builder.dockerfile.instructions import Dockerfile
from builder.dockerfile.instructions import Warning as LintWarning
from builder.dockerfile.lint import OF_BUILT_STAGES
from builder.dockerfile.words import Lexer
from builder.errors import DockerfileError, Location, UsageError
from builder.oci.config import ExecConfig, ImageConfig
from builder.oci.platform import Platform
from builder.plan import notes
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
from builder.steps.step import AddStep, CopyStep, FromContext, FromImage, FromNamedContext, RunStep, Step

_DEFAULT_HOSTNAME = "buildkitsandbox"


def _no_time(source: str) -> int | None:
    return None


def plan(
    dockerfile: Dockerfile, options: PlanOptions, resolve_base: ResolveBase, resolve_time: ResolveTime = _no_time
) -> Plan:
    """What to build for `options.targets`.

    `resolve_base` is called once for each base image that is needed, one after the other; `external_images` tells
    beforehand which those are, so that a caller can fetch them all at once. Raises DockerfileError with the line
    for what the Dockerfile gets wrong, UsageError for the options, and what the two functions raise.
    """
    _check_stages(dockerfile)
    dockerfile = _with_check_of_build_arg(dockerfile, options)
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
    warnings = _sorted(_of_built_stages(dockerfile.warnings, nodes, planned) + findings.all())
    _fail_on_warnings(dockerfile, warnings)
    return Plan(
        stages=planned,
        targets=tuple(target.index for target in targets),
        skipped=_skipped(stages, planned, targets),
        warnings=warnings,
        notes=notes.notes(dockerfile, [trigger for node in nodes for trigger in node.triggers], options.build_args),
        epoch=epoch,
        hostname=options.build_args.get(notes.HOSTNAME) or _DEFAULT_HOSTNAME,
    )


def external_images(dockerfile: Dockerfile, options: PlanOptions) -> tuple[ExternalImage, ...]:
    """The images from outside that are known before anything is fetched: bases, and what COPY and mounts read.

    What a trigger of a base image reads is missing. Raises what `plan` raises for the same reasons.
    """
    _check_stages(dockerfile)
    args = global_args(dockerfile, automatic_args(dockerfile, options), options.build_args)
    stages = resolve_stages(dockerfile, options, args, declared_names(dockerfile), Findings(dockerfile.check))
    check_references(stages)
    found: dict[ExternalImage, None] = {}

    def note(reference: str, platform: Platform) -> BaseImage:
        found[ExternalImage(reference, platform)] = None
        return BaseImage(ImageConfig(platform))

    for node in reach(stages, stages.targets(), note):
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
        index = node.resolved.index
        base, start = _start(node, states, scope)
        state, steps = _contents(node, start)
        state, own_steps = evaluate_all(node.commands, state, scope)
        states[index] = state
        planned.append(_planned(node, base, start, state, (*steps, *own_steps), index in targets, scope))
    return tuple(planned)


def _start(node: StageNode, states: Mapping[int, StageState], scope: Scope) -> tuple[Base, StageState]:
    """What the stage stands on, and its state before the first instruction."""
    source = node.resolved.source
    match source:
        case StageBase(index):
            return source, from_stage(states[index])
        case ExternalImage(reference, platform):
            assert node.image is not None
            if not node.resolved.replaced:
                scope.findings.report_base_platform(node.resolved.stage, platform, node.image.platform)
            return ImageBase(reference, platform, node.image), from_image(node.image)
        case DirectoryBase() if node.resolved.replaced:
            # The context takes the stage's place with its files only: an image without any configuration.
            return ScratchBase(), StageState(config=ExecConfig(), env={}, platform=scope.options.platform)
        case _:
            return ScratchBase(), from_scratch(scope.options.platform)


def _contents(node: StageNode, start: StageState) -> tuple[StageState, tuple[Step, ...]]:
    if isinstance(node.resolved.source, DirectoryBase):
        return start, (copy_of_context(node.resolved.source.context, node.resolved, start.config),)
    return start, ()


def _planned(
    node: StageNode,
    base: Base,
    start: StageState,
    state: StageState,
    steps: tuple[Step, ...],
    is_target: bool,
    scope: Scope,
) -> PlannedStage:
    options = scope.options
    stage = node.resolved.stage
    final, platform = state.config, state.platform
    if is_target:
        final = replace(final, labels={**final.labels, **options.labels}) if options.labels else final
        platform = options.target_platform or platform
    contexts = {origin.name for origin in node.origins if isinstance(origin, FromNamedContext)}
    if isinstance(node.resolved.source, DirectoryBase):
        contexts.add(node.resolved.source.context)
    return PlannedStage(
        index=node.resolved.index,
        name=stage.name,
        display=node.resolved.display,
        text=one_line(stage.code),
        location=stage.location,
        base=base,
        platform=platform,
        start=start.config,
        steps=steps,
        final=final,
        author=state.author,
        dependencies=node.dependencies,
        images=_images_read(node, options),
        contexts=tuple(sorted(contexts)),
        uses_context=any(map(_uses_context, steps)),
    )


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
            return any(isinstance(getattr(mount, "origin", None), FromContext) for mount in step.mounts)
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


def _of_built_stages(
    warnings: Iterable[LintWarning], nodes: tuple[StageNode, ...], planned: tuple[PlannedStage, ...]
) -> tuple[LintWarning, ...]:
    """The parser's findings without those that BuildKit does not make: in stages that are not built, and about a
    missing SHELL where the base image has one.
    """
    shells = {
        instruction.location: stage.start.shell
        for node, stage in zip(nodes, planned, strict=True)
        for instruction in node.resolved.commands
    }
    return tuple(
        warning
        for warning in warnings
        if warning.rule not in OF_BUILT_STAGES
        or (warning.location in shells and not (warning.rule == "JSONArgsRecommended" and shells[warning.location]))
    )


def _sorted(warnings: Iterable[LintWarning]) -> tuple[LintWarning, ...]:
    """By line; findings of one line in the order in which they were made."""
    return tuple(sorted(warnings, key=lambda warning: warning.location.start))


def _with_check_of_build_arg(dockerfile: Dockerfile, options: PlanOptions) -> Dockerfile:
    """BUILDKIT_DOCKERFILE_CHECK decides whether findings are errors, and silences more rules."""
    text = options.build_args.get(notes.CHECK)
    if text is None:
        return dockerfile
    try:
        check = parse_check(text)
    except ValueError as error:
        raise UsageError(f"--build-arg {notes.CHECK}={text}: {error}", "write skip=RULE,RULE;error=true") from None
    warnings = tuple(warning for warning in dockerfile.warnings if not check.silences(warning.rule))
    return replace(dockerfile, check=check, warnings=warnings)


def _fail_on_warnings(dockerfile: Dockerfile, warnings: tuple[LintWarning, ...]) -> None:
    if not dockerfile.check.error or not warnings:
        return
    rules = ", ".join(dict.fromkeys(warning.rule for warning in warnings))
    raise DockerfileError(
        f"lint violation found for rules: {rules}",
        f"{warnings[0].message}; or leave out error=true",
        location=warnings[0].location,
    )
