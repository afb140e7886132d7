"""`limpet login`: put a registry's user name and password where builds look for them."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from builder.cli.arguments import Arguments
from builder.cli.output import Output
from builder.errors import UsageError
from builder.registry.credentials import login


def run(arguments: Arguments, env: Mapping[str, str], output: Output) -> int:
    """Store the credential; the registry is not asked. Raises UsageError, RegistryError."""
    if len(arguments.positionals) != 1:
        raise UsageError(
            "limpet login: expected one registry", "limpet login --username NAME --password-stdin REGISTRY"
        )
    if not arguments.text("username"):
        raise UsageError("limpet login: no user name", "give --username")
    registry = arguments.positionals[0].removeprefix("https://").rstrip("/")
    password = _password(arguments)
    output.redactor.add(password)
    place = login(registry, arguments.text("username"), password, env)
    output.say(f"stored the credential for {registry} in {place}")
    return 0


def _password(arguments: Arguments) -> str:
    if not arguments.is_set("password-stdin"):
        password = arguments.text("password")
    elif arguments.text("password"):
        raise UsageError("--password and --password-stdin exclude each other", "use --password-stdin")
    else:
        password = sys.stdin.read().removesuffix("\n").removesuffix("\r")
    if not password:
        raise UsageError("limpet login: no password", "write it to standard input with --password-stdin")
    return password
