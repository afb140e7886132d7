"""Lint findings of a plan: rules that need the values of variables, ignore patterns or base images.

What can be said from the text alone, `builder.dockerfile.lint` says.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping

from builder.dockerfile.instructions import Check, Dockerfile, Instruction, Stage
from builder.dockerfile.instructions import Warning as LintWarning
from builder.dockerfile.patterns import PatternMatcher
from builder.dockerfile.suggestion import closest
from builder.dockerfile.words import Expansion, Lexer
from builder.errors import DockerfileError, UsageError
from builder.oci.platform import Platform
from builder.oci.reference import Reference
from builder.plan.global_args import global_args


class Findings:
    """Collects findings; what the file's `check`, or a directive above an instruction, silences is dropped."""

    def __init__(self, check: Check, ignore_patterns: Iterable[str] = ()) -> None:
        self._check = check
        patterns = tuple(ignore_patterns)
        # Patterns that bring files back may exclude a directory in part: nothing can be said of it then.
        usable = patterns and not any(pattern.startswith("!") for pattern in patterns)
        self._ignore = PatternMatcher(patterns) if usable else None
        self._found: list[LintWarning] = []

    def report(self, rule: str, message: str, at: Instruction | Stage) -> None:
        """A finding of `rule` at an instruction or a FROM."""
        if not self._check.silences(rule) and not at.check.silences(rule):
            self._found.append(LintWarning(rule, message, at.location))

    def all(self) -> tuple[LintWarning, ...]:
        """What was found so far."""
        return tuple(self._found)

    def report_default_bases(self, dockerfile: Dockerfile, automatic: Mapping[str, str]) -> None:
        """InvalidDefaultArgInFrom: every base must be an image's name also when nobody gives a build argument."""
        lexer = Lexer(dockerfile.escape)
        try:
            args = global_args(dockerfile, automatic, {})
            for stage in dockerfile.stages:
                if not _is_reference(lexer.expand(stage.base, args)):
                    self.report(
                        "InvalidDefaultArgInFrom",
                        f"Default value for ARG {stage.base} results in empty or invalid base image name",
                        stage,
                    )
        except DockerfileError:
            return  # an error where it matters, if it does with the build arguments that were given

    def report_undeclared_in_from(self, unset: Iterable[str], known: Mapping[str, str], stage: Stage) -> None:
        """UndefinedArgInFrom: `known` are the global arguments, declared ones without a value included."""
        for name in sorted(set(unset) - known.keys()):
            near = closest(name, known, case_sensitive=True)
            suggestion = f" (did you mean {near}?)" if near else ""
            self.report("UndefinedArgInFrom", f"FROM argument '{name}' is not declared{suggestion}", stage)

    def report_platform(self, stage: Stage, expansion: Expansion, args: Mapping[str, str]) -> None:
        """RedundantTargetPlatform and FromPlatformFlagConstDisallowed, of `FROM --platform`."""
        if expansion.matched == {"TARGETPLATFORM"} and not expansion.unmatched:
            if expansion.text == args["TARGETPLATFORM"]:
                self.report(
                    "RedundantTargetPlatform",
                    f"Setting platform to predefined {stage.platform} in FROM is redundant as this is the default "
                    "behavior",
                    stage,
                )
        elif not expansion.matched and not expansion.unmatched:
            self._report_constant_platform(stage, expansion.text)

    def _report_constant_platform(self, stage: Stage, text: str) -> None:
        """A stage whose name tells the system or the architecture is meant to be for that one."""
        try:
            platform = Platform.parse(text)
        except UsageError:
            return  # an error where the platform is needed
        if platform.os in stage.name or platform.architecture in stage.name:
            return
        self.report(
            "FromPlatformFlagConstDisallowed", f'FROM --platform flag should not use constant value "{text}"', stage
        )

    def report_base_platform(self, stage: Stage, wanted: Platform, found: Platform) -> None:
        """InvalidBaseImagePlatform: variants are not compared."""
        if (wanted.os, wanted.architecture) == (found.os, found.architecture):
            return
        self.report(
            "InvalidBaseImagePlatform",
            f'Base image {stage.base} was pulled with platform "{found}", expected "{wanted}" for current build',
            stage,
        )

    def report_ignored(self, verb: str, sources: Iterable[str], at: Instruction) -> None:
        """CopyIgnoredFile."""
        if self._ignore is None:
            return
        for source in sources:
            path = posixpath.normpath(source)
            if self._ignore.excludes(path):
                self.report(
                    "CopyIgnoredFile", f'Attempting to {verb} file "{path}" that is excluded by .dockerignore', at
                )


def _is_reference(text: str) -> bool:
    try:
        Reference.parse(text)
    except UsageError:
        return False
    return True
