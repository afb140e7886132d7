"""From a tree to stages: the entry points of this package."""

from __future__ import annotations

from dataclasses import replace

from builder.dockerfile.check_directive import file_check, instruction_check
from builder.dockerfile.directives import detect_directive
from builder.dockerfile.instructions import Arg, Check, Dockerfile, Instruction, Stage
from builder.dockerfile.lint import lint
from builder.dockerfile.parser import parse_tree
from builder.dockerfile.typed import typed_instruction
from builder.errors import DockerfileError, Location


def parse(data: bytes, path: str) -> Dockerfile:
    """Parse a whole Dockerfile; `path` is what errors call it.

    Raises DockerfileError, with a location, for everything that is wrong before any variable is expanded. A file
    that has only global ARGs is valid here: it has no stages.
    """
    tree = parse_tree(data, path)
    check = file_check(detect_directive("check", data), path)
    meta_args: list[Arg] = []
    stages: list[Stage] = []
    commands: list[list[Instruction]] = []
    instructions = [(node, typed_instruction(node, instruction_check(node.comments, check))) for node in tree.nodes]
    for node, instruction in instructions:
        if isinstance(instruction, Stage):
            stages.append(instruction)
            commands.append([])
        elif stages:
            commands[-1].append(instruction)
        elif isinstance(instruction, Arg):
            meta_args.append(instruction)
        else:
            raise DockerfileError(
                "no build stage in current context",
                f"only ARG may come before the first FROM, not {node.keyword}",
                location=node.location,
            )
    syntax = detect_directive("syntax", data)
    return Dockerfile(
        path=path,
        meta_args=tuple(meta_args),
        stages=tuple(replace(stage, commands=tuple(body)) for stage, body in zip(stages, commands)),
        escape=tree.lines.escape,
        warnings=lint(instructions, tree.lines.escape),
        check=check,
        syntax=syntax.value if syntax else "",
    )


def parse_instruction(text: str, location: Location) -> Instruction:
    """Parse an ONBUILD trigger, which is an instruction of its own with its heredoc bodies.

    `location` is where it takes effect (FROM). Its escape character is always a backslash, whatever the file that
    it came from used. Raises DockerfileError if it is not exactly one instruction, or one that may not be a trigger.
    """
    try:
        tree = parse_tree(text.encode("utf-8", "surrogateescape"), location.path)
        if len(tree.nodes) != 1:
            raise DockerfileError("it should be a single instruction")
        instruction = typed_instruction(tree.nodes[0], Check())
    except DockerfileError as error:
        raise DockerfileError(f"ONBUILD trigger {text!r}: {error.message}", error.hint, location=location) from None
    if isinstance(instruction, Stage):
        raise DockerfileError(f"ONBUILD trigger {text!r}: FROM isn't allowed as an ONBUILD trigger", location=location)
    return replace(instruction, location=location)
