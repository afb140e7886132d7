"""What an instruction is evaluated in: the state of its stage, and what does not change within a stage."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from builder.dockerfile.instructions import Instruction
from builder.dockerfile.suggestion import closest
from builder.dockerfile.words import Expansion, Lexer, WordError
from builder.errors import DockerfileError, Location
from builder.oci.config import ExecConfig
from builder.oci.platform import Platform
from builder.plan.findings import Findings
from builder.plan.stages import StageTable
from builder.plan.values import PlanOptions

NOT_IN_ENVIRONMENT = frozenset({"BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"})
"""ARGs that appear in the history only."""

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")


@dataclass(frozen=True, slots=True, kw_only=True)
class StageState:
    """A stage between two instructions.

    `env` is what expansions and RUN see: ENV and ARG together, the last writer wins. `args` are the ARGs declared
    so far, those of parent stages first, in the order of their first declaration; an ARG without value is "".
    `cmd_set` and `workdir_set`: a CMD was seen in this stage, a WORKDIR in this Dockerfile.
    """

    config: ExecConfig
    env: Mapping[str, str] = field(repr=False)
    platform: Platform
    args: Mapping[str, str] = field(default_factory=dict, repr=False)
    author: str = ""
    cmd_set: bool = False
    workdir_set: bool = False

    def with_config(self, config: ExecConfig) -> StageState:
        return replace(self, config=config)

    def with_variables(self, variables: Iterable[tuple[str, str]]) -> StageState:
        """With more variables for expansions and RUN; the image's configuration stays."""
        return replace(self, env={**self.env, **dict(variables)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What is the same for all instructions of a stage.

    `stages` tells what the names mean that COPY and mounts read from. `global_args` are the automatic arguments and
    the ARGs before the first FROM.
    """

    options: PlanOptions
    lexer: Lexer
    global_args: Mapping[str, str] = field(repr=False)
    stages: StageTable
    epoch: int | None
    cache_namespace: str
    findings: Findings

    def expand(self, text: str, state: StageState, instruction: Instruction) -> str:
        """`text` with quotes, escapes and variables processed, as one word.

        Variables that nothing sets are reported. Raises DockerfileError.
        """
        expansion = self._process(self.lexer, text, state, instruction.location)
        self._report_unset(expansion, state, instruction)
        return expansion.text

    def expand_to_words(self, text: str, state: StageState, instruction: Instruction) -> tuple[str, ...]:
        """`text` expanded and split at white space. Raises DockerfileError."""
        return self._process(self.lexer, text, state, instruction.location).words

    def expand_body(self, text: str, state: StageState, instruction: Instruction) -> str:
        """A heredoc's body: quotes are text, and the escape character is always a backslash."""
        expansion = self._process(Lexer(quotes=False), text, state, instruction.location)
        self._report_unset(expansion, state, instruction)
        return expansion.text

    def has_variables(self, text: str) -> bool:
        """Whether `text` looks variables up."""
        try:
            return bool(self.lexer.process(text, {}).unmatched)
        except WordError:
            return True

    def _process(self, lexer: Lexer, text: str, state: StageState, location: Location) -> Expansion:
        try:
            return lexer.process(text, state.env)
        except WordError as error:
            raise DockerfileError(error.message, error.hint, location=location) from error

    def _report_unset(self, expansion: Expansion, state: StageState, instruction: Instruction) -> None:
        for name in sorted(expansion.unmatched - state.args.keys() - NOT_IN_ENVIRONMENT):
            near = closest(name, state.env, case_sensitive=True)
            suggestion = f" (did you mean ${near}?)" if near else ""
            self.findings.report("UndefinedVar", f"Usage of undefined variable '${name}'{suggestion}", instruction)


def proxies(build_args: Mapping[str, str]) -> dict[str, str]:
    """The proxy settings among the build arguments, each in upper and in lower case."""
    found: dict[str, str] = {}
    for name, value in build_args.items():
        if name.upper() in PROXIES:
            found[name.upper()] = found[name.lower()] = value
    return found
