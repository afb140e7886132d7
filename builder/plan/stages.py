"""FROM resolved: what each stage stands on, which names mean what, and what the targets reach."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from builder.dockerfile.instructions import Copy, Dockerfile, Instruction, Onbuild, Run, Stage
from builder.dockerfile.suggestion import closest, did_you_mean
from builder.dockerfile.words import Expansion, Lexer, WordError
from builder.errors import DockerfileError, Location, UsageError
from builder.oci.platform import Platform
from builder.oci.reference import Reference
from builder.plan.findings import Findings
from builder.plan.values import SCRATCH, ExternalImage, PlanOptions, ScratchBase, StageBase
from builder.steps.step import FromImage, FromNamedContext, FromStage, Origin

_IMAGE_SCHEME = "docker-image://"
_LAYOUT_SCHEME = "oci-layout://"
_RESERVED = (SCRATCH, "context")
_INDEX = re.compile(r"[+-]?[0-9]{1,9}")


@dataclass(frozen=True, slots=True)
class DirectoryBase:
    """A named context that is a directory, in place of an image or of a stage."""

    context: str


StageSource = ScratchBase | StageBase | ExternalImage | DirectoryBase


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedStage:
    """A FROM with its variables expanded: `written` is what it names. A stage that a named context replaces has no
    commands."""

    index: int
    stage: Stage
    written: str
    source: StageSource
    platform: Platform | None  # of --platform
    replaced: bool = False

    @property
    def display(self) -> str:
        return self.stage.name or str(self.index)

    @property
    def commands(self) -> tuple[Instruction, ...]:
        return () if self.replaced else self.stage.commands


@dataclass(frozen=True, slots=True)
class StageTable:
    """All stages of a Dockerfile, and what the names in it mean."""

    stages: tuple[ResolvedStage, ...]
    options: PlanOptions

    def named(self, name: str) -> ResolvedStage | None:
        """The last stage with this name, in any case."""
        wanted = name.lower()
        return next((stage for stage in reversed(self.stages) if stage.stage.name == wanted), None)

    def targets(self) -> tuple[ResolvedStage, ...]:
        """The stages to build. Raises UsageError for a target that no stage has as its name."""
        if not self.options.targets:
            return (self.stages[-1],)
        found = []
        for target in self.options.targets:
            stage = self.named(target)
            if stage is None:
                names = [stage.stage.name for stage in self.stages if stage.stage.name]
                known = f"the Dockerfile's stages are {', '.join(names)}" if names else "no stage has a name"
                raise UsageError(f"there is no stage called {target!r}", did_you_mean(target, names) or known)
            if stage not in found:
                found.append(stage)
        return tuple(found)

    def origin(self, name: str, location: Location, *, index_allowed: bool) -> Origin:
        """What `--from=name` reads: a stage by name or by index, a named context, or an image.

        Raises DockerfileError when it is none of these.
        """
        if "$" in name:
            raise DockerfileError(
                f"--from={name}: variables are not expanded here",
                f"write FROM {name} AS NAME with a global ARG, and --from=NAME",
                location=location,
            )
        stage = self.named(name)
        if index_allowed and stage is None and _INDEX.fullmatch(name):
            if not 0 <= int(name) < len(self.stages):
                raise DockerfileError(
                    f"--from={name}: there is no stage with this index",
                    f"stages are counted from 0 to {len(self.stages) - 1}",
                    location=location,
                )
            stage = self.stages[int(name)]
        if stage is not None:
            return FromStage(stage.index)
        match base_source(name, self.options, location, self.options.platform):
            case DirectoryBase(context):
                return FromNamedContext(context)
            case ExternalImage(reference):
                return FromImage(reference)
            case _:
                return FromImage(SCRATCH)


def sources_of(instruction: Instruction) -> tuple[tuple[str, bool], ...]:
    """The names that `instruction` reads from besides the context, and whether a stage's index is one."""
    if isinstance(instruction, Copy) and instruction.source_stage:
        return ((instruction.source_stage, True),)
    if isinstance(instruction, Run):
        found = []
        for mount in instruction.mounts:
            fields = dict(mount.fields)
            if fields.get("from") and fields.get("type") not in ("tmpfs", "ssh"):
                found.append((fields["from"] or "", False))
        return tuple(found)
    return ()


def triggers_of(stage: ResolvedStage) -> tuple[str, ...]:
    """What ONBUILD instructions of `stage` leave to the stages on top of it."""
    return tuple(instruction.expression for instruction in stage.commands if isinstance(instruction, Onbuild))


def resolve_stages(
    dockerfile: Dockerfile, options: PlanOptions, args: Mapping[str, str], declared: set[str], findings: Findings
) -> StageTable:
    """Expand every FROM with the global arguments, also of stages that no target reaches.

    Raises DockerfileError for a base that is empty or no image reference, and for a bad platform.
    """
    lexer = Lexer(dockerfile.escape)
    known = {**dict.fromkeys(declared, ""), **args}
    stages: list[ResolvedStage] = []
    for index, stage in enumerate(dockerfile.stages):
        base = _expand(lexer, stage.base, args, stage.location)
        findings.report_undeclared_in_from(base.unmatched, known, stage)
        if not base.text:
            raise DockerfileError(
                f"FROM {stage.base}: the base image's name is empty", _unset_hint(base, known), location=stage.location
            )
        platform = _platform(stage, lexer, args, known, findings)
        replacement = _named_context(stage.name, options, platform or options.platform) if stage.name else None
        source = replacement or _stage_source(base.text, stages, options, platform or options.platform, stage.location)
        stages.append(
            ResolvedStage(
                index=index,
                stage=stage,
                written=base.text,
                source=source,
                platform=platform,
                replaced=replacement is not None,
            )
        )
    return StageTable(tuple(stages), options)


def _stage_source(
    base: str, earlier: list[ResolvedStage], options: PlanOptions, platform: Platform, location: Location
) -> StageSource:
    for stage in reversed(earlier):
        if stage.stage.name and stage.stage.name == base.lower():
            return StageBase(stage.index)
    return base_source(base, options, location, platform)


def base_source(name: str, options: PlanOptions, location: Location, platform: Platform) -> StageSource:
    """What `name` is when no stage has it: scratch, a named context or an image. Raises DockerfileError."""
    if name == SCRATCH:
        return ScratchBase()
    context = _named_context(name, options, platform)
    if context is not None:
        return context
    try:
        reference = str(Reference.parse(name))
    except UsageError as error:
        raise DockerfileError(error.message, error.hint, location=location) from None
    return ExternalImage(reference, platform)


def _named_context(name: str, options: PlanOptions, platform: Platform) -> ExternalImage | DirectoryBase | None:
    """The named context that stands for `name`; `alpine`, `alpine:latest` and the full name are one."""
    if name.lower() in _RESERVED:
        return None
    key = _context_key(name)
    for given, location in options.named_contexts.items():
        if given != name and _context_key(given) != key:
            continue
        if location.startswith(_IMAGE_SCHEME):
            return ExternalImage(_image_of_context(given, location.removeprefix(_IMAGE_SCHEME)), platform)
        if location.startswith(_LAYOUT_SCHEME):
            return ExternalImage(location, platform)
        return DirectoryBase(given)
    return None


def _image_of_context(name: str, image: str) -> str:
    try:
        return str(Reference.parse(image))
    except UsageError as error:
        raise UsageError(f"--build-context {name}: {error.message}", error.hint) from None


def _context_key(name: str) -> str:
    try:
        return str(Reference.parse(name))
    except UsageError:
        return name


def _platform(
    stage: Stage, lexer: Lexer, args: Mapping[str, str], known: Mapping[str, str], findings: Findings
) -> Platform | None:
    """`FROM --platform`, None when there is none."""
    if not stage.platform:
        return None
    expansion = _expand(lexer, stage.platform, args, stage.location)
    findings.report_undeclared_in_from(expansion.unmatched, known, stage)
    findings.report_platform(stage, expansion, args)
    if not expansion.text:
        raise DockerfileError(
            f"FROM --platform={stage.platform}: the platform is empty",
            _unset_hint(expansion, known),
            location=stage.location,
        )
    try:
        return Platform.parse(expansion.text)
    except UsageError as error:
        raise DockerfileError(
            f"FROM --platform={stage.platform}: {error.message}", error.hint, location=stage.location
        ) from None


def _expand(lexer: Lexer, text: str, args: Mapping[str, str], location: Location) -> Expansion:
    try:
        return lexer.process(text, args)
    except WordError as error:
        raise DockerfileError(error.message, error.hint, location=location) from error


def _unset_hint(expansion: Expansion, known: Mapping[str, str]) -> str:
    for name in sorted(expansion.unmatched - known.keys()):
        near = closest(name, known, case_sensitive=True)
        if near:
            return f"{name} is not declared; did you mean {near}?"
    names = ", ".join(sorted(expansion.unmatched))
    return f"give {names} a value: ARG before the first FROM, or --build-arg" if names else ""
