"""Trees and instructions in the form that the vectors have: dictionaries, and s-expressions."""

from __future__ import annotations

from typing import Any

from builder.dockerfile.arguments import GRAMMARS
from builder.dockerfile.instructions import (
    Add,
    Arg,
    Copy,
    Dockerfile,
    Env,
    Expose,
    Healthcheck,
    Heredoc,
    Instruction,
    Label,
    Maintainer,
    Onbuild,
    Pair,
    Run,
    Shell,
    ShellOrExec,
    Stage,
    StopSignal,
    User,
    Volume,
    Workdir,
)
from builder.dockerfile.parser import ONBUILD, Node
from builder.dockerfile.quoting import quote

JSON = dict[str, Any]


def encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _arguments(node: Node) -> list[str]:
    """An unknown instruction has one empty argument there."""
    return list(node.arguments) if node.keyword in (*GRAMMARS, ONBUILD) else [""]


def dump(node: Node) -> str:
    parts = [node.name.lower()]
    if node.flags:
        parts.append(f"[{' '.join(map(quote, node.flags))}]")
    if node.trigger:
        parts.append(dump(node.trigger))
    parts += map(quote, _arguments(node))
    return f"({' '.join(parts).strip()})"


def tree_node(node: Node, *, behind_onbuild: bool = False) -> JSON:
    form: JSON = {
        "value": node.name,
        "original": node.code,
        "start_line": 0 if behind_onbuild else node.location.start,
        "end_line": 0 if behind_onbuild else node.location.end,
        "args": _arguments(node),
    }
    if node.flags:
        form["flags"] = list(node.flags)
    if node.is_json:
        form["attributes"] = {"json": True}
    if node.comments:
        form["prev_comment"] = list(node.comments)
    if node.heredocs:
        form["heredocs"] = list(map(heredoc, node.heredocs))
    if node.trigger:
        form["sub"] = tree_node(node.trigger, behind_onbuild=True)
    return form


def heredoc(value: Heredoc) -> JSON:
    return {name: getattr(value, name) for name in ("name", "fd", "expand", "chomp", "content")}


def empty_continuations(nodes: tuple[Node, ...]) -> list[JSON]:
    return [
        {"line": node.location.end, "short": f"Empty continuation line found in: {node.code}"}
        for node in nodes
        if node.empty_continuation
    ]


def typed_file(dockerfile: Dockerfile) -> JSON:
    return {
        "meta_args": [{"type": "arg", "args": _args(arg)} for arg in dockerfile.meta_args],
        "stages": [_stage(stage) for stage in dockerfile.stages] or None,
    }


def _stage(stage: Stage) -> JSON:
    form: JSON = {name: getattr(stage, name) for name in ("base", "code", "doc", "name", "platform")}
    form["commands"] = [_instruction(command) for command in stage.commands] or None
    return form


def _instruction(command: Instruction) -> JSON:
    form: JSON = {
        "type": type(command).__name__.lower(),
        "name": command.code.split()[0],
        "code": command.code,
        "lines": [command.location.start, command.location.end],
    }
    match command:
        case Arg():
            form["args"] = _args(command)
        case Env():
            form["env"] = _pairs(command.pairs)
        case Label():
            form["labels"] = _pairs(command.pairs)
        case Maintainer():
            form["maintainer"] = command.name
        case ShellOrExec():
            form |= _shell_or_exec(command)
        case Copy() | Add():
            form |= _copy_or_add(command)
        case Expose():
            form["ports"] = list(command.ports)
        case Volume():
            form["volumes"] = list(command.paths)
        case User():
            form["user"] = command.user
        case Workdir():
            form["path"] = command.path
        case StopSignal():
            form["signal"] = command.signal
        case Shell():
            form["shell"] = list(command.shell)
        case Healthcheck():
            form["health"] = _health(command)
        case Onbuild():
            form["expression"] = command.expression
    return form


def _args(arg: Arg) -> list[JSON]:
    return [{"doc": pair.doc, "key": pair.key, "value": pair.value} for pair in arg.args]


def _pairs(pairs: tuple[Pair, ...]) -> list[JSON]:
    return [{"key": pair.key, "no_delim": pair.legacy, "value": pair.value} for pair in pairs]


def _shell_or_exec(command: ShellOrExec) -> JSON:
    files = [{"chomp": file.chomp, "data": file.content, "name": file.name} for file in command.heredocs]
    form: JSON = {"cmdline": list(command.args) or None, "prepend_shell": command.shell_form, "files": files or None}
    if isinstance(command, Run):
        form |= {
            "network": command.network,
            "security": command.security,
            "devices": list(map(_device, command.devices)),
        }
    return form


def _device(text: str) -> JSON:
    name, _, option = text.partition(",")
    return {"Name": name, "Required": option == "required"}


def _copy_or_add(command: Copy | Add) -> JSON:
    contents = [{"data": file.content, "expand": file.expand, "path": file.name} for file in command.heredocs]
    form: JSON = {
        "sources": list(command.sources) or None,
        "dest": command.destination,
        "contents": contents or None,
        "chown": command.chown,
        "chmod": command.chmod,
        "link": command.link,
        "exclude": list(command.exclude) or None,
    }
    if isinstance(command, Copy):
        return form | {"from": command.source_stage, "parents": command.parents}
    return form | {
        "checksum": command.checksum,
        "keep_git_dir": command.keep_git_dir,
        "unpack": command.unpack,
    }


def _health(command: Healthcheck) -> JSON:
    form = {
        "Test": list(command.test),
        "Interval": command.interval,
        "Timeout": command.timeout,
        "StartPeriod": command.start_period,
        "StartInterval": command.start_interval,
        "Retries": command.retries,
    }
    return {name: value for name, value in form.items() if value}
