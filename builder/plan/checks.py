"""Which lint findings count, and whether they end the build."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from builder.dockerfile.check_directive import parse_check
from builder.dockerfile.instructions import Check, Dockerfile
from builder.dockerfile.instructions import Warning as LintWarning
from builder.dockerfile.lint import OF_BUILT_STAGES
from builder.errors import DockerfileError, UsageError
from builder.plan.graph import StageNode
from builder.plan.notes import CHECK
from builder.plan.values import PlannedStage


def with_build_arg(dockerfile: Dockerfile, build_args: Mapping[str, str]) -> Dockerfile:
    """BUILDKIT_DOCKERFILE_CHECK decides whether findings are errors, and silences more rules.

    Raises UsageError when it is malformed.
    """
    text = build_args.get(CHECK)
    if text is None:
        return dockerfile
    try:
        check = parse_check(text)
    except ValueError as error:
        raise UsageError(f"--build-arg {CHECK}={text}: {error}", "write skip=RULE,RULE;error=true") from None
    warnings = tuple(warning for warning in dockerfile.warnings if not check.silences(warning.rule))
    return replace(dockerfile, check=check, warnings=warnings)


def of_built_stages(
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


def refuse_if_asked(check: Check, warnings: tuple[LintWarning, ...]) -> None:
    """Raises DockerfileError if there are findings and `error=true` says that they are errors."""
    if not check.error or not warnings:
        return
    first = min(warnings, key=lambda warning: warning.location.start)
    rules = ", ".join(sorted({warning.rule for warning in warnings}))
    raise DockerfileError(
        f"lint violation found for rules: {rules}",
        f"{first.message}; or leave out error=true",
        location=first.location,
    )
