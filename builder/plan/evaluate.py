"""A stage evaluated: its instructions one after the other, each a step and a new state."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from builder.dockerfile.instructions import (
    Add,
    Arg,
    Cmd,
    Copy,
    Entrypoint,
    Env,
    Expose,
    Healthcheck,
    Instruction,
    Label,
    Maintainer,
    Onbuild,
    Run,
    Shell,
    StopSignal,
    User,
    Volume,
    Workdir,
)
from builder.oci.config import ExecConfig, History, ImageConfig
from builder.oci.platform import Platform
from builder.plan import files, metadata
from builder.plan.run import run
from builder.plan.scope import Scope, StageState
from builder.plan.stages import ResolvedStage
from builder.steps.step import CopyStep, FromNamedContext, Step

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def evaluate(instruction: Instruction, state: StageState, scope: Scope) -> tuple[StageState, Step]:
    """What `instruction` does: the state after it, and the step. Raises DockerfileError with its line."""
    match instruction:
        case Arg():
            return metadata.arg(instruction, state, scope)
        case Env():
            return metadata.env(instruction, state, scope)
        case Label():
            return metadata.label(instruction, state, scope)
        case Maintainer():
            return metadata.maintainer(instruction, state, scope)
        case Cmd():
            return metadata.cmd(instruction, state, scope)
        case Entrypoint():
            return metadata.entrypoint(instruction, state, scope)
        case Shell():
            return metadata.shell(instruction, state, scope)
        case Healthcheck():
            return metadata.healthcheck(instruction, state, scope)
        case Expose():
            return metadata.expose(instruction, state, scope)
        case Volume():
            return metadata.volume(instruction, state, scope)
        case User():
            return metadata.user(instruction, state, scope)
        case StopSignal():
            return metadata.stop_signal(instruction, state, scope)
        case Onbuild():
            return metadata.onbuild(instruction, state, scope)
        case Workdir():
            return files.workdir(instruction, state, scope)
        case Copy():
            return files.copy(instruction, state, scope)
        case Add():
            return files.add(instruction, state, scope)
        case Run():
            return run(instruction, state, scope)
    raise AssertionError(f"no evaluation for {type(instruction).__name__}")


def evaluate_all(
    instructions: Iterable[Instruction], state: StageState, scope: Scope
) -> tuple[StageState, tuple[Step, ...]]:
    """`instructions` in order."""
    steps = []
    for instruction in instructions:
        state, step = evaluate(instruction, state, scope)
        steps.append(step)
    return state, tuple(steps)


def from_scratch(platform: Platform) -> StageState:
    """`FROM scratch`: nothing but a PATH, and `/` as the working directory."""
    config = ExecConfig(env=(f"PATH={DEFAULT_PATH}",), working_dir="/")
    return StageState(config=config, env=config.environment(), platform=platform)


def from_image(image: ImageConfig) -> StageState:
    """A base image: its triggers are spent, and there is always a PATH."""
    config = _with_path(replace(image.exec, on_build=()))
    return StageState(config=config, env=config.environment(), platform=image.platform, author=image.author)


def from_stage(parent: StageState) -> StageState:
    """Another stage: everything is inherited but its triggers, which were for this one."""
    config = _with_path(replace(parent.config, on_build=()))
    return replace(parent, config=config, env={**config.environment(), **parent.env}, cmd_set=False)


def _with_path(config: ExecConfig) -> ExecConfig:
    return config if "PATH" in config.environment() else config.with_env("PATH", DEFAULT_PATH)


def copy_of_context(context: str, stage: ResolvedStage, config: ExecConfig) -> CopyStep:
    """The step that fills an empty stage with a named context, where that stands for the base or for the stage."""
    description = f"[context {context}] load from client"
    return CopyStep(
        location=stage.stage.location,
        text=description,
        exec_config=config,
        history=History(created_by=description, comment="buildkit.exporter.image.v0"),
        origin=FromNamedContext(context),
        sources=("/",),
        destination="/",
    )
