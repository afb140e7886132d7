"""Lint rules that need nothing but the text. Names and messages are BuildKit's.

Rules about values of variables, ignore patterns and base images are `builder.plan`'s.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from builder.dockerfile.check_directive import is_check_comment
from builder.dockerfile.instructions import (
    Arg,
    Cmd,
    Entrypoint,
    Env,
    Healthcheck,
    Instruction,
    Label,
    Maintainer,
    Shell,
    ShellOrExec,
    Stage,
    Warning,  # noqa: A004 - a lint finding
    Workdir,
)
from builder.dockerfile.parser import Node
from builder.dockerfile.quoting import quote
from builder.dockerfile.words import Lexer, WordError
from builder.errors import Location

OF_BUILT_STAGES = frozenset(
    {
        "JSONArgsRecommended",
        "LegacyKeyValueFormat",
        "MultipleInstructionsDisallowed",
        "SecretsUsedInArgOrEnv",
        "WorkdirRelativePath",
    }
)
"""Rules that BuildKit applies while it evaluates a stage: findings in stages that are not built do not count."""

_RESERVED = frozenset({"context", "scratch"})
_SECRET = re.compile(
    r"(?:_|\A)(?:apikey|auth|credentials?|key|password|pword|passwd|secret|token)(?:_|\Z)", re.IGNORECASE
)
# Names of what is public anyway, of files and of versions tell no secret.
_HARMLESS = re.compile(r"(?:_|\A)(?:public|file|version)(?:_|\Z)", re.IGNORECASE)

Pairs = Sequence[tuple[Node, Instruction | Stage]]


def lint(instructions: Pairs, escape: str) -> tuple[Warning, ...]:
    """The findings in a file, given as its instructions in order; what `# check=` silences is left out."""
    findings = _Findings()
    for node, instruction in instructions:
        _check_node(node, instruction, findings)
    _check_stage_names([item for _, item in instructions if isinstance(item, Stage)], findings)
    _check_casing(instructions, findings)
    _check_stages(instructions, escape, findings)
    return tuple(sorted(findings.found, key=lambda warning: warning.location.start))


@dataclass(slots=True)
class _Findings:
    found: list[Warning] = field(default_factory=list)

    def report(
        self,
        rule: str,
        message: str,
        at: Instruction | Stage,
        *,
        location: Location | None = None,
        experimental: bool = False,
    ) -> None:
        if not at.check.silences(rule, experimental=experimental):
            self.found.append(Warning(rule, message, location or at.location))


def _check_node(node: Node, instruction: Instruction | Stage, findings: _Findings) -> None:
    """Rules about one instruction as it is written."""
    if node.empty_continuation:
        end = Location(node.location.path, node.location.end, node.location.end)
        findings.report("NoEmptyContinuation", "Empty continuation line", instruction, location=end)
    if isinstance(instruction, Maintainer):
        findings.report(
            "MaintainerDeprecated", "Maintainer instruction is deprecated in favor of using label", instruction
        )
    elif isinstance(instruction, Arg):
        _check_description(node, [pair.key for pair in instruction.args], instruction, findings)
    elif isinstance(instruction, Stage) and instruction.name:
        _check_description(node, [instruction.name], instruction, findings)
        _check_from_as(node, instruction, findings)


def _check_from_as(node: Node, stage: Stage, findings: _Findings) -> None:
    keyword, name = node.arguments[1:]
    if name != stage.name:
        findings.report("StageNameCasing", f"Stage name '{name}' should be lowercase", stage)
    if not _is_mixed(node.name) and keyword != (keyword.lower() if node.name.islower() else keyword.upper()):
        findings.report("FromAsCasing", f"'{keyword}' and '{node.name}' keywords' casing do not match", stage)


def _check_description(node: Node, names: Sequence[str], instruction: Instruction | Stage, findings: _Findings) -> None:
    comments = [comment for comment in node.comments if not is_check_comment(comment)]
    if not comments or comments[-1].split(" ")[0] in names:
        return
    findings.report(
        "InvalidDefinitionDescription",
        f"Comment for {node.keyword} should follow the format: "
        f"`# {names[0] if len(names) == 1 else '<arg_key>'} <description>`",
        instruction,
        experimental=True,
    )


def _check_stage_names(stages: Iterable[Stage], findings: _Findings) -> None:
    seen: set[str] = set()
    for stage in stages:
        if stage.name in _RESERVED:
            findings.report(
                "ReservedStageName",
                f"Stage name should not use the same name as reserved stage {quote(stage.name)}",
                stage,
            )
        if stage.name in seen:
            findings.report(
                "DuplicateStageName", f"Duplicate stage name {quote(stage.name)}, stage names should be unique", stage
            )
        if stage.name:
            seen.add(stage.name)


def _is_mixed(name: str) -> bool:
    return not (name.islower() or name.isupper())


def _check_casing(instructions: Pairs, findings: _Findings) -> None:
    """ConsistentInstructionCasing: what stands before the first FROM is not counted."""
    counted = list(_from_first_stage(instructions))
    lower = sum(node.name.islower() for node, _ in counted)
    upper = sum(node.name.isupper() for node, _ in counted)
    casing = "lowercase" if lower > upper else "uppercase"
    for node, instruction in counted:
        if not (node.name.islower() if lower > upper else node.name.isupper()):
            findings.report(
                "ConsistentInstructionCasing",
                f"Command '{node.name}' should match the case of the command majority ({casing})",
                instruction,
            )


def _from_first_stage(instructions: Pairs) -> Iterator[tuple[Node, Instruction | Stage]]:
    started = False
    for node, instruction in instructions:
        started = started or isinstance(instruction, Stage)
        if started:
            yield node, instruction


@dataclass(slots=True)
class _StageState:
    """What the rules remember of a stage; `FROM stage` inherits the first two."""

    workdir_set: bool = False
    shell_set: bool = False
    last: dict[type[Instruction], Instruction] = field(default_factory=dict)


def _check_stages(instructions: Pairs, escape: str, findings: _Findings) -> None:
    """Rules that look at what came before in the stage."""
    named: dict[str, _StageState] = {}
    state = _StageState()
    for node, instruction in _from_first_stage(instructions):
        if isinstance(instruction, Stage):
            parent = named.get(instruction.base.lower(), _StageState())
            state = _StageState(parent.workdir_set, parent.shell_set)
            if instruction.name:
                named[instruction.name] = state
            continue
        _check_in_stage(node.name, instruction, state, escape, findings)


def _check_in_stage(name: str, instruction: Instruction, state: _StageState, escape: str, findings: _Findings) -> None:
    if isinstance(instruction, Cmd | Entrypoint | Healthcheck):
        earlier = state.last.get(type(instruction))
        if earlier:
            findings.report(
                "MultipleInstructionsDisallowed",
                f"Multiple {name} instructions should not be used in the same stage because only the last one will "
                "be used",
                earlier,
            )
        state.last[type(instruction)] = instruction
    if isinstance(instruction, Cmd | Entrypoint):
        _check_json(name, instruction, state, findings)
    elif isinstance(instruction, Env | Label | Arg):
        _check_pairs(name, instruction, findings)
    elif isinstance(instruction, Shell):
        state.shell_set = True
    elif isinstance(instruction, Workdir):
        if not state.workdir_set:
            _check_workdir(instruction, escape, findings)
        state.workdir_set = True


def _check_json(name: str, instruction: ShellOrExec, state: _StageState, findings: _Findings) -> None:
    if instruction.shell_form and not state.shell_set:
        findings.report(
            "JSONArgsRecommended",
            f"JSON arguments recommended for {name} to prevent unintended behavior related to OS signals",
            instruction,
        )


def _check_pairs(name: str, instruction: Env | Label | Arg, findings: _Findings) -> None:
    pairs = instruction.args if isinstance(instruction, Arg) else instruction.pairs
    if any(pair.legacy for pair in pairs):
        findings.report(
            "LegacyKeyValueFormat",
            f'"{name} key=value" should be used instead of legacy "{name} key value" format',
            instruction,
        )
    if isinstance(instruction, Label):
        return
    for pair in pairs:
        if _SECRET.search(pair.key) and not _HARMLESS.search(pair.key):
            findings.report(
                "SecretsUsedInArgOrEnv",
                f"Do not use ARG or ENV instructions for sensitive data ({name.upper()} {quote(pair.key)})",
                instruction,
            )


def _check_workdir(instruction: Workdir, escape: str, findings: _Findings) -> None:
    """A path with variables in it is not judged here: its value may be absolute."""
    try:
        expansion = Lexer(escape).process(instruction.path, {})
    except WordError:
        return  # an error where it is evaluated
    if expansion.unmatched or expansion.text.startswith("/"):
        return
    findings.report(
        "WorkdirRelativePath",
        f"Relative workdir {quote(expansion.text)} can have unexpected results if the base image changes",
        instruction,
    )
