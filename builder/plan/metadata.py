"""Instructions that change the image's configuration and nothing else."""

from __future__ import annotations

import re
from dataclasses import replace

from builder.dockerfile.instructions import (
    Arg,
    Cmd,
    Entrypoint,
    Env,
    Expose,
    Healthcheck,
    Instruction,
    Label,
    Maintainer,
    Onbuild,
    Shell,
    ShellOrExec,
    StopSignal,
    User,
    Volume,
)
from builder.dockerfile.whitespace import strip
from builder.errors import DockerfileError
from builder.oci.config import ExecConfig
from builder.oci.config import Healthcheck as ImageHealthcheck
from builder.plan import history
from builder.plan.ports import exposed_ports
from builder.plan.scope import NOT_IN_ENVIRONMENT, Scope, StageState
from builder.plan.text import one_line
from builder.steps.step import ConfigStep, MaintainerStep, Step

DEFAULT_SHELL = ("/bin/sh", "-c")

_SIGNALS = frozenset(
    [
        "ABRT",
        "ALRM",
        "BUS",
        "CHLD",
        "CLD",
        "CONT",
        "FPE",
        "HUP",
        "ILL",
        "INT",
        "IO",
        "IOT",
        "KILL",
        "PIPE",
        "POLL",
        "PROF",
        "PWR",
        "QUIT",
        "RTMAX",
        "RTMIN",
        "SEGV",
        "STKFLT",
        "STOP",
        "SYS",
        "TERM",
        "TRAP",
        "TSTP",
        "TTIN",
        "TTOU",
        "URG",
        "USR1",
        "USR2",
        "VTALRM",
        "WINCH",
        "XCPU",
        "XFSZ",
    ]
)
_REAL_TIME_SIGNAL = re.compile(r"RTMIN\+([1-9]|1[0-5])|RTMAX-([1-9]|1[0-4])")


def arg(instruction: Arg, state: StageState, scope: Scope) -> tuple[StageState, Step]:
    """ARG: `--build-arg`, else the default written here, else the global argument of that name.

    One argument at a time: a default may use those before it. Build arguments are not expanded.
    """
    declared: list[tuple[str, str | None]] = []
    for pair in instruction.args:
        value = scope.options.build_args.get(pair.key)
        if value is None and pair.value is not None:
            value = scope.expand(pair.value, state, instruction)
        elif value is None:
            value = scope.global_args.get(pair.key)
        state = replace(state, args={**state.args, pair.key: value or ""})
        if value is not None and pair.key not in NOT_IN_ENVIRONMENT:
            state = state.with_variables([(pair.key, value)])
        declared.append((pair.key, value))
    return configure(instruction, state, scope, state.config, history.arguments(declared))


def env(instruction: Env, state: StageState, scope: Scope) -> tuple[StageState, Step]:
    """ENV: every word sees the environment before the instruction."""
    pairs = [
        (scope.expand(pair.key, state, instruction), scope.expand(pair.value or "", state, instruction))
        for pair in instruction.pairs
    ]
    config = state.config
    for key, value in pairs:
        config = config.with_env(key, value)
    return configure(instruction, state.with_variables(pairs), scope, config, history.pairs("ENV", pairs))


def label(instruction: Label, state: StageState, scope: Scope) -> tuple[StageState, Step]:
    pairs = [
        (scope.expand(pair.key, state, instruction), scope.expand(pair.value or "", state, instruction))
        for pair in instruction.pairs
    ]
    config = replace(state.config, labels={**state.config.labels, **dict(pairs)})
    return configure(instruction, state, scope, config, history.pairs("LABEL", pairs))


def maintainer(instruction: Maintainer, state: StageState, scope: Scope) -> tuple[StageState, Step]:
    step = MaintainerStep(
        location=instruction.location,
        text=one_line(instruction.code),
        exec_config=state.config,
        history=history.entry(f"MAINTAINER {instruction.name}", scope.epoch),
        author=instruction.name,
    )
    return replace(state, author=instruction.name), step


def cmd(instruction: Cmd, state: StageState, scope: Scope) -> tuple[StageState, Step]:
    args = command_line(instruction, state.config)
    config = replace(state.config, cmd=args, args_escaped=True)
    return configure(instruction, replace(state, cmd_set=True), scope, config, history.command("CMD", args))


def entrypoint(instruction: Entrypoint, state: StageState, scope: Scope) -> tuple[StageState, Step]:
    """ENTRYPOINT: a CMD that came from the base belongs to the base's entry point, and goes with it."""
    args = command_line(instruction, state.config)
    config = replace(state.config, entrypoint=args, cmd=state.config.cmd if state.cmd_set else None)
    return configure(instruction, state, scope, config, history.command("ENTRYPOINT", args))


def command_line(instruction: ShellOrExec, config: ExecConfig) -> tuple[str, ...]:
    """The arguments as they are, or behind SHELL."""
    if not instruction.shell_form:
        return instruction.args
    return (*(config.shell or DEFAULT_SHELL), " ".join(instruction.args))


def shell(instruction: Shell, state: StageState, scope: Scope) -> tuple[StageState, Step]:
    config = replace(state.config, shell=instruction.shell)
    return configure(instruction, state, scope, config, history.words("SHELL", instruction.shell))


def healthcheck(instruction: Healthcheck, state: StageState, scope: Scope) -> tuple[StageState, Step]:
    check = ImageHealthcheck(
        test=instruction.test,
        interval=instruction.interval,
        timeout=instruction.timeout,
        start_period=instruction.start_period,
        start_interval=instruction.start_interval,
        retries=instruction.retries,
    )
    config = replace(state.config, healthcheck=check)
    return configure(instruction, state, scope, config, history.healthcheck(instruction))


def expose(instruction: Expose, state: StageState, scope: Scope) -> tuple[StageState, Step]:
    """EXPOSE: words are sorted, then expanded, then split again; ranges become single ports."""
    words = [word for port in sorted(instruction.ports) for word in scope.expand_to_words(port, state, instruction)]
    ports = [port for word in words for port in exposed_ports(word, instruction, scope.findings)]
    config = replace(state.config, exposed_ports=tuple(sorted({*state.config.exposed_ports, *ports})))
    return configure(instruction, state, scope, config, history.words("EXPOSE", ports))


def volume(instruction: Volume, state: StageState, scope: Scope) -> tuple[StageState, Step]:
    paths = [strip(scope.expand(path, state, instruction)) for path in instruction.paths]
    if not all(paths):
        raise DockerfileError("VOLUME: the path is empty", location=instruction.location)
    config = replace(state.config, volumes=tuple(sorted({*state.config.volumes, *paths})))
    return configure(instruction, state, scope, config, history.words("VOLUME", paths))


def user(instruction: User, state: StageState, scope: Scope) -> tuple[StageState, Step]:
    name = scope.expand(instruction.user, state, instruction)
    return configure(instruction, state, scope, replace(state.config, user=name), f"USER {name}")


def stop_signal(instruction: StopSignal, state: StageState, scope: Scope) -> tuple[StageState, Step]:
    """STOPSIGNAL: kept as written, but it must be a signal of Linux."""
    signal = scope.expand(instruction.signal, state, instruction)
    if not _is_signal(signal):
        raise DockerfileError(
            f"STOPSIGNAL {signal}: no such signal",
            "write a name like SIGTERM or RTMIN+3, or a number that is not 0",
            location=instruction.location,
        )
    return configure(instruction, state, scope, replace(state.config, stop_signal=signal), f"STOPSIGNAL {signal}")


def _is_signal(signal: str) -> bool:
    if re.fullmatch(r"[+-]?[0-9]+", signal):
        return signal.strip("+-0") != ""
    name = signal.upper().removeprefix("SIG")
    return name in _SIGNALS or _REAL_TIME_SIGNAL.fullmatch(name) is not None


def onbuild(instruction: Onbuild, state: StageState, scope: Scope) -> tuple[StageState, Step]:
    """ONBUILD: kept for builds on top of this image; no history."""
    config = replace(state.config, on_build=(*state.config.on_build, instruction.expression))
    return configure(instruction, state, scope, config, None)


def configure(
    instruction: Instruction, state: StageState, scope: Scope, config: ExecConfig, created_by: str | None
) -> tuple[StageState, Step]:
    """The state with `config`, and the step that says so."""
    step = ConfigStep(
        location=instruction.location,
        text=one_line(instruction.code),
        exec_config=config,
        history=None if created_by is None else history.entry(created_by, scope.epoch),
    )
    return state.with_config(config), step
