"""SOURCE_DATE_EPOCH: the time of everything that is new in an image."""

from __future__ import annotations

import re
from collections.abc import Mapping

from builder.dockerfile.instructions import Add, Arg, Dockerfile, Stage
from builder.dockerfile.words import Lexer, WordError
from builder.errors import DockerfileError, Location
from builder.plan.remote import is_remote
from builder.plan.values import SCRATCH, PlanOptions, ResolveTime

NAME = "SOURCE_DATE_EPOCH"
_CONTEXT = "context"
_FIRST, _LAST = -62_135_596_800, 253_402_300_799


def resolve_epoch(
    dockerfile: Dockerfile, options: PlanOptions, args: Mapping[str, str], resolve_time: ResolveTime
) -> int | None:
    """The value in seconds since 1970, from a build argument or a global ARG; None when there is none.

    Not a number, it names what has a time: `context`, a named context, or a stage that only ADDs one remote source
    to scratch. Raises DockerfileError when it is none of these.
    """
    value = options.build_args.get(NAME, args.get(NAME, ""))
    if not value:
        return None
    if re.fullmatch(r"[+-]?[0-9]{1,18}", value):
        return _in_range(int(value), dockerfile)
    if value == _CONTEXT or value in options.named_contexts:
        return options.epochs.get(value)
    for stage in dockerfile.stages:
        if stage.name and stage.name == value.lower():
            return resolve_time(_remote_source(stage, dockerfile, options, args))
    raise DockerfileError(
        f"{NAME}={value} is neither a number of seconds nor a context nor a stage",
        "write the seconds since 1970, e.g. from `git log -1 --pretty=%ct`",
        location=_definition(dockerfile),
    )


def _in_range(epoch: int, dockerfile: Dockerfile) -> int:
    """`epoch` if RFC 3339, in which images have their times, can express it: years 1 to 9999."""
    if not _FIRST <= epoch <= _LAST:
        raise DockerfileError(
            f"{NAME}={epoch} is no time of the years 1 to 9999",
            "write the seconds since 1970",
            location=_definition(dockerfile),
        )
    return epoch


def _definition(dockerfile: Dockerfile) -> Location | None:
    for instruction in dockerfile.meta_args:
        if any(pair.key == NAME for pair in instruction.args):
            return instruction.location
    return None


def _remote_source(stage: Stage, dockerfile: Dockerfile, options: PlanOptions, args: Mapping[str, str]) -> str:
    """The URL or git address that `stage`, which may have nothing else but ARGs, adds to scratch."""
    lexer = Lexer(dockerfile.escape)
    env = {name: value for name, value in args.items() if name != NAME}
    sources: list[str] = []
    try:
        if lexer.expand(stage.base, env) != SCRATCH:
            raise _not_a_source(stage, "it must be FROM scratch")
        for instruction in stage.commands:
            if isinstance(instruction, Arg):
                env |= _args(instruction, env, options, lexer)
            elif isinstance(instruction, Add):
                sources += [lexer.expand(source, env) for source in instruction.sources]
            else:
                raise _not_a_source(stage, f"it may not have {instruction.code.split()[0].upper()}")
    except WordError as error:
        raise DockerfileError(error.message, error.hint, location=stage.location) from error
    if len(sources) != 1 or not is_remote(sources[0], stage.location):
        raise _not_a_source(stage, "it must ADD one URL or git repository")
    return sources[0]


def _args(instruction: Arg, env: Mapping[str, str], options: PlanOptions, lexer: Lexer) -> dict[str, str]:
    found: dict[str, str] = {}
    for pair in instruction.args:
        if pair.key in options.build_args:
            found[pair.key] = options.build_args[pair.key]
        elif pair.value is not None:
            found[pair.key] = lexer.expand(pair.value, {**env, **found})
    return found


def _not_a_source(stage: Stage, reason: str) -> DockerfileError:
    return DockerfileError(f"stage {stage.name!r} cannot tell {NAME}: {reason}", location=stage.location)
