"""COPY, ADD and WORKDIR on trees in memory: planned steps, one after the other."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from builder.dockerfile.patterns import read_ignore_file
from builder.dockerfile.stages import parse
from builder.errors import BuildError
from builder.oci.config import ExecConfig, ImageConfig
from builder.oci.platform import Platform
from builder.plan import BaseImage, Plan, PlanOptions, ScratchBase, StageBase, plan
from builder.rootfs.layered import LayeredTree
from builder.steps.add import AddSettings, add_changes
from builder.steps.context import ContextTree, IgnoreFile
from builder.steps.copy import CopySettings, copy_changes
from builder.steps.step import AddStep, CopyStep, FromContext, FromStage, Step, WorkdirStep
from builder.steps.workdir import workdir_changes
from tests.conformance import vectors
from tests.conformance.filesystem import differences, layer_entries, write_directory

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the trees have files of several owners: needs uid 0")

# Unknown names of --chown are an error unless BuildKit's behaviour is asked for.
_SETTINGS = CopySettings(1_700_000_000_123_456_789, unknown_owners_are_root=True)
_PLATFORM = Platform.host()
_CONFIG = {"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], "Cmd": ["/bin/sh"]}
_BASE_CONFIG = ImageConfig(_PLATFORM, ExecConfig.from_json(_CONFIG))


@pytest.fixture(scope="module")
def start(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The trees that all cases start from."""
    return vectors.read(vectors.directory(request.config) / "fs_copy.json")


@pytest.fixture(scope="module")
def context(start: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("context")
    write_directory(start["context_tree"], directory)
    return directory


@pytest.fixture(scope="module")
def base_tree(start: dict[str, Any]) -> LayeredTree:
    return LayeredTree().apply(layer_entries(start["base_tree"]))


@pytest.mark.vectors("fs_copy")
def test_steps_on_trees(case: dict[str, Any], context: Path, base_tree: LayeredTree, tmp_path: Path) -> None:
    """The steps of the plan, applied to trees one after the other."""
    ignore = read_ignore_file(case.get("dockerignore", "").encode())
    source = ContextTree(context, IgnoreFile(".dockerignore", ignore))
    if "error" in case:
        with pytest.raises(BuildError):
            _carry_out(_planned(case, ignore), source, base_tree, tmp_path)
        return
    planned = _planned(case, ignore)
    assert not differences(case["tree"], _carry_out(planned, source, base_tree, tmp_path))
    target = planned.stage(planned.targets[0])
    assert target.final.to_json() == case["config"]
    entries: list[dict[str, Any]] = []
    for stage in _line(planned):
        steps = [step.history for step in stage.steps if step.history is not None]
        entries += [{"created_by": entry.created_by, "empty_layer": entry.empty_layer} for entry in steps]
    assert entries == case["history"]


def _planned(case: dict[str, Any], ignore: tuple[str, ...]) -> Plan:
    options = PlanOptions(build_platform=_PLATFORM, ignore_patterns=ignore)
    return plan(parse(case["dockerfile"].encode(), "Dockerfile"), options, lambda *_: BaseImage(_BASE_CONFIG))


def _line(planned: Plan) -> list[Any]:
    """The target's stage and those that it is FROM, the first of them first."""
    stages = [planned.stage(planned.targets[0])]
    while isinstance(stages[0].base, StageBase):
        stages.insert(0, planned.stage(stages[0].base.index))
    return stages


def _carry_out(planned: Plan, context: ContextTree, base_tree: LayeredTree, work: Path) -> LayeredTree:
    finished: dict[int, LayeredTree] = {}
    for stage in planned.stages:
        match stage.base:
            case ScratchBase():
                tree = LayeredTree()
            case StageBase(index):
                tree = finished[index]
            case _:
                tree = base_tree
        for step in stage.steps:
            tree = _take(step, tree, context, lambda index: finished.get(index, base_tree), work)
        finished[stage.index] = tree
    return finished[planned.targets[0]]


def _take(
    step: Step, tree: LayeredTree, context: ContextTree, stage: Callable[[int], LayeredTree], work: Path
) -> LayeredTree:
    match step:
        case WorkdirStep():
            return tree.apply(workdir_changes(step, tree, _SETTINGS.created))
        case CopyStep(origin=FromContext()):
            return tree.apply(copy_changes(step, context, tree, _SETTINGS))
        case CopyStep(origin=origin):
            source = stage(origin.index if isinstance(origin, FromStage) else -1)
            return tree.apply(copy_changes(step, source, tree, _SETTINGS, "the stage"))
        case AddStep():
            return tree.apply(add_changes(step, context, tree, _SETTINGS, AddSettings(work)))
    return tree
