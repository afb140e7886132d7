"""The commands, by name: which module carries each out, and what `--help` says of it.

A command's module has `run(arguments, env, output) -> int`, the exit code; it is imported when it is needed.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, cast

from builder.cli.arguments import Arguments
from builder.cli.output import Output


class Run(Protocol):
    """A command's entry point. Raises BuildError; returns the exit code."""

    def __call__(self, arguments: Arguments, env: Mapping[str, str], output: Output) -> int: ...


@dataclass(frozen=True, slots=True)
class Command:
    """`operands` is how usage shows the positional arguments; "" when there are none, and they are refused.

    A command that `announces` itself logs Limpet's version first, before its module and all that it needs is loaded.
    """

    name: str
    summary: str
    module: str
    operands: str = ""
    announces: bool = False

    def load(self) -> Run:
        """The function that carries the command out."""
        return cast(Run, importlib.import_module(f"builder.cli.{self.module}").run)


COMMANDS = {
    command.name: command
    for command in (
        Command("build", "build an image and push it (flags without a command do the same)", "build_command", "", True),
        Command("plan", "print what a build would do, without fetching layers", "plan_command"),
        Command("doctor", "show what this pod allows and which isolation a build would take", "doctor_command"),
        Command("login", "store a registry's user name and password", "login_command", "REGISTRY"),
        Command("push", "push an image archive or an OCI image layout", "push_command", "PATH", True),
        Command("warm", "fill the local store with base images", "warm_command", "", True),
        Command("cache list", "list what a layer cache or a local store holds", "cache_command"),
        Command("cache prune", "remove old entries from a layer cache or a local store", "cache_command", "[KEY...]"),
        Command(
            "index create", "make one index of images built for several platforms", "index_command", "REF MEMBER..."
        ),
        Command(
            "catalog", "write the pipeline definitions as a Tekton bundle", "catalog_command", "bundle REF [FILE...]"
        ),
        Command("version", "print Limpet's version", "version_command"),
    )
}
EXECUTOR = ("build", "version", "login", "push")  # what kaniko's executor has
