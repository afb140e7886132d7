"""RUN: the process, its environment and its mounts."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, field

from builder.dockerfile.heredoc import heredoc_of_word, without_leading_tabs
from builder.dockerfile.instructions import Run
from builder.errors import DockerfileError
from builder.oci.config import ExecConfig
from builder.plan import history
from builder.plan.metadata import DEFAULT_SHELL
from builder.plan.mounts import run_mounts
from builder.plan.scope import Scope, StageState, proxies
from builder.plan.text import one_line
from builder.plan.values import NETWORK_HOST, SECURITY_INSECURE
from builder.steps.step import RunStep, SshMount, Step

_PIPES = "/dev/pipes"


@dataclass(frozen=True, slots=True)
class _Command:
    """What to execute, and the scripts that are to lie in /dev/pipes, by name."""

    argv: tuple[str, ...]
    pipes: Mapping[str, str] = field(default_factory=dict)


def run(instruction: Run, state: StageState, scope: Scope) -> tuple[StageState, Step]:
    """RUN: sees ENV, ARGs and proxies; proxies are kept out of the history and of the cache key."""
    _check_entitlements(instruction, scope)
    command = _command(instruction, state.config)
    if not command.argv:
        raise DockerfileError("RUN []: there is nothing to run", "name a program", location=instruction.location)
    mounts = run_mounts(instruction, state, scope)
    key_env = dict(state.env)
    agents = [mount for mount in mounts if isinstance(mount, SshMount)]
    if agents:
        key_env.setdefault("SSH_AUTH_SOCK", agents[0].target)
    step = RunStep(
        location=instruction.location,
        text=one_line(instruction.code),
        exec_config=state.config,
        history=history.entry(history.run(command.argv, _declared(state)), scope.epoch, layer=True, suffix=True),
        argv=command.argv,
        env={**key_env, **proxies(scope.options.build_args)},
        key_env=key_env,
        user=state.config.user,
        cwd=state.config.working_dir or "/",
        mounts=mounts,
        network=instruction.network,
        security=instruction.security,
        pipes=command.pipes,
    )
    return state, step


def _declared(state: StageState) -> dict[str, str]:
    """The declared ARGs with the values that the process sees: an ENV of the same name may have come after."""
    return {name: state.env.get(name, value) for name, value in state.args.items()}


def _check_entitlements(instruction: Run, scope: Scope) -> None:
    wanted = {
        NETWORK_HOST: "--network=host" if instruction.network == "host" else "",
        SECURITY_INSECURE: "--security=insecure" if instruction.security == "insecure" else "",
    }
    if instruction.devices:
        raise DockerfileError(
            f"RUN --device={instruction.devices[0]}: devices are not supported",
            "BuildKit has them in its labs channel only; leave the flag out",
            location=instruction.location,
        )
    for entitlement, flag in wanted.items():
        if flag and entitlement not in scope.options.allow:
            raise DockerfileError(
                f"RUN {flag} is not allowed in this build",
                f"pass --allow={entitlement} if you trust this Dockerfile with it, or leave the flag out",
                location=instruction.location,
            )


def _command(instruction: Run, config: ExecConfig) -> _Command:
    """Exec form as it is; shell form behind SHELL; heredocs as the script itself or for the shell to read."""
    if not instruction.shell_form:
        return _Command(instruction.args)
    shell = config.shell or DEFAULT_SHELL
    text = " ".join(instruction.args)
    if not instruction.heredocs:
        return _Command((*shell, text))
    if heredoc_of_word(text) is None:
        # Not the whole command: the shell reads the heredocs, so it gets them, end marks included.
        bodies = "".join(f"\n{heredoc.content}{heredoc.name}" for heredoc in instruction.heredocs)
        return _Command((*shell, text + bodies))
    script = instruction.heredocs[0]
    content = without_leading_tabs(script.content) if script.chomp else script.content
    if content.startswith("#!"):
        return _Command((*shell, posixpath.join(_PIPES, script.name)), {script.name: content})
    return _Command((*shell, content))
