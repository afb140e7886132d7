"""A plan for people and for programs: what `limpet plan` prints."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from builder.plan.text import printable
from builder.plan.values import Base, ImageBase, Plan, PlannedStage, ScratchBase, StageBase
from builder.steps.step import (
    AddStep,
    CopyStep,
    FromContext,
    FromImage,
    FromNamedContext,
    FromStage,
    MaintainerStep,
    Origin,
    RunStep,
    Step,
    WorkdirStep,
)


@dataclass(frozen=True, slots=True)
class CacheView:
    """What a layer cache has of a plan: of each step that makes a layer, by stage and step (from 0), what there is to
    say; and the stages that are not `needed` because of it."""

    steps: Mapping[tuple[int, int], str]
    needed: frozenset[int]


def render_text(plans: Sequence[Plan], cached: Sequence[CacheView] = ()) -> str:
    """The plans as indented lists: stages in build order, their steps by number, skipped stages, warnings.

    With `cached`, one for each plan, steps say whether the cache has their layers.

    Steps that make a layer are marked `+`. Values of arguments and variables are not shown. Where there are plans
    for several platforms, each begins with a line that names its own.
    """
    texts = [_plan_text(plan, cached[number] if cached else None) for number, plan in enumerate(plans)]
    if len(plans) == 1:
        return texts[0]
    return "\n".join(f"platform {plan.platform}\n{text}" for plan, text in zip(plans, texts, strict=True))


def _plan_text(plan: Plan, cached: CacheView | None) -> str:
    names = {stage.index: stage.display for stage in plan.stages}
    lines: list[str] = []
    for stage in plan.stages:
        lines += _stage_lines(stage, plan, names, cached)
    for skipped in plan.skipped:
        lines.append(f"stage {skipped.display} skipped: {skipped.reason}")
    for warning in plan.warnings:
        lines.append(f"warning: {warning.location}: {warning.rule}: {warning.message}")
    lines += [f"note: {note}" for note in plan.notes]
    return printable("\n".join(lines))


def _stage_lines(stage: PlannedStage, plan: Plan, names: dict[int, str], cached: CacheView | None) -> list[str]:
    target = "  (target)" if stage.index in plan.targets else ""
    lines = [f"stage {stage.display}{target}", f"    from {_base_text(stage.base, names)}, platform {stage.platform}"]
    needs = [f"stage {names[index]}" for index in stage.dependencies if stage.base != StageBase(index)]
    needs += [f"image {image.reference}" for image in stage.images]
    needs += [f"context {name}" for name in stage.contexts]
    if needs:
        lines.append(f"    reads {', '.join(needs)}")
    if cached is not None and stage.index not in cached.needed:
        lines.append("    not built: what is read from it is cached")
    width = len(str(len(stage.steps)))
    for number, step in enumerate(stage.steps, 1):
        mark = "+" if _makes_layer(step) else " "
        said = cached.steps.get((stage.index, number - 1)) if cached is not None else None
        lines.append(f"    {number:>{width}} {mark} {step.text}{f'  [{said}]' if said else ''}")
    return lines


def _base_text(base: Base, names: dict[int, str]) -> str:
    match base:
        case StageBase(index):
            return f"stage {names[index]}"
        case ImageBase():
            return f"image {base.reference}"
        case ScratchBase():
            return "scratch"


def render_json(plans: Sequence[Plan], cached: Sequence[CacheView] = ()) -> str:
    """The plan as one JSON object, members in a fixed order, indented by two blanks. Plans for several platforms are
    members of `platforms`, by platform. With `cached`, one for each plan, stages and steps say what the cache has.

    Values of arguments and variables are not in it, except where an instruction writes them into the image.
    """
    values = [_plan_json(plan, cached[number] if cached else None) for number, plan in enumerate(plans)]
    if len(plans) == 1:
        value = values[0]
    else:
        value = {"platforms": {str(plan.platform): each for plan, each in zip(plans, values, strict=True)}}
    # A byte that was not UTF-8 is written as JSON's escape of its surrogate.
    return json.dumps(value, indent=2, ensure_ascii=False).encode("utf-8", "backslashreplace").decode()


def _plan_json(plan: Plan, cached: CacheView | None) -> dict[str, Any]:
    value: dict[str, Any] = {
        "targets": list(plan.targets),
        "stages": [_stage_json(stage, cached) for stage in plan.stages],
        "skipped": [
            {"index": skipped.index, "name": skipped.display, "line": skipped.location.start, "reason": skipped.reason}
            for skipped in plan.skipped
        ],
        "warnings": [
            {"rule": warning.rule, "line": warning.location.start, "message": warning.message}
            for warning in plan.warnings
        ],
        "notes": list(plan.notes),
    }
    if plan.epoch is not None:
        value["source_date_epoch"] = plan.epoch
    return value


def _stage_json(stage: PlannedStage, cached: CacheView | None) -> dict[str, Any]:
    value: dict[str, Any] = {
        "index": stage.index,
        "name": stage.display,
        "line": stage.location.start,
        "base": _base_json(stage.base),
        "platform": str(stage.platform),
        "needs_stages": list(stage.dependencies),
        "needs_images": [image.reference for image in stage.images],
        "needs_contexts": list(stage.contexts),
        "uses_context": stage.uses_context,
        "steps": [_step_json(number, step) for number, step in enumerate(stage.steps, 1)],
        "config": stage.final.to_json(),
    }
    if cached is not None:
        value["needed"] = stage.index in cached.needed
        for number, step in enumerate(value["steps"]):
            step["cache"] = cached.steps.get((stage.index, number), "")
    return value


def _base_json(base: Base) -> dict[str, Any]:
    match base:
        case StageBase(index):
            return {"stage": index}
        case ImageBase():
            return {"image": base.reference, "platform": str(base.platform)}
        case ScratchBase():
            return {"scratch": True}


def _step_json(number: int, step: Step) -> dict[str, Any]:
    value: dict[str, Any] = {
        "number": number,
        "kind": _KINDS.get(type(step), "config"),
        "line": step.location.start,
        "text": step.text,
        "layer": _makes_layer(step),
    }
    match step:
        case CopyStep():
            value |= {"from": _origin_json(step.origin), "sources": list(step.sources), "to": step.destination}
        case AddStep():
            value |= {"sources": list(step.sources), "to": step.destination}
        case WorkdirStep():
            value |= {"path": step.path}
        case RunStep():
            value |= {"user": step.user, "cwd": step.cwd, "network": step.network}
    return value


_KINDS: dict[type[Step], str] = {
    AddStep: "add",
    CopyStep: "copy",
    MaintainerStep: "config",
    RunStep: "run",
    WorkdirStep: "workdir",
}


def _origin_json(origin: Origin) -> dict[str, Any]:
    match origin:
        case FromContext():
            return {"context": True}
        case FromNamedContext(name):
            return {"context": name}
        case FromStage(index):
            return {"stage": index}
        case FromImage(reference):
            return {"image": reference}


def _makes_layer(step: Step) -> bool:
    return step.history is not None and not step.history.empty_layer
