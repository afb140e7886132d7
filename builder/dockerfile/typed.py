"""From nodes to typed instructions: flags, argument counts and everything else that an instruction demands."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Literal, cast

from builder.dockerfile.arguments import GRAMMARS
from builder.dockerfile.csv_fields import split_csv
from builder.dockerfile.flags import Flags, Kind, parse_flags
from builder.dockerfile.heredoc import heredoc_of_word, without_leading_tabs
from builder.dockerfile.instructions import (
    Add,
    Arg,
    Check,
    Cmd,
    Copy,
    Entrypoint,
    Env,
    Expose,
    Healthcheck,
    Heredoc,
    Instruction,
    Label,
    Maintainer,
    Mount,
    Onbuild,
    Pair,
    Run,
    Shell,
    Stage,
    StopSignal,
    User,
    Volume,
    Workdir,
)
from builder.dockerfile.literals import parse_duration
from builder.dockerfile.parser import ONBUILD, Node
from builder.dockerfile.quoting import quote
from builder.dockerfile.suggestion import did_you_mean
from builder.dockerfile.whitespace import strip
from builder.dockerfile.words import WordError
from builder.errors import DockerfileError

INSTRUCTIONS = (*GRAMMARS, ONBUILD)

_STAGE_NAME = re.compile(r"[a-z][a-z0-9\-_.]*", re.ASCII)
_SHORTEST_INTERVAL = 1_000_000  # nanoseconds
_VARIABLE = re.compile(r"\$.")

_FLAGS: Mapping[str, Mapping[str, Kind]] = {
    "ADD": {
        "chown": Kind.TEXT,
        "chmod": Kind.TEXT,
        "link": Kind.TRUTH,
        "checksum": Kind.TEXT,
        "keep-git-dir": Kind.TRUTH,
        "unpack": Kind.TRUTH,
        "exclude": Kind.TEXTS,
    },
    "COPY": {
        "from": Kind.TEXT,
        "chown": Kind.TEXT,
        "chmod": Kind.TEXT,
        "link": Kind.TRUTH,
        "parents": Kind.TRUTH,
        "exclude": Kind.TEXTS,
    },
    "FROM": {"platform": Kind.TEXT},
    "HEALTHCHECK": {
        "interval": Kind.TEXT,
        "timeout": Kind.TEXT,
        "start-period": Kind.TEXT,
        "start-interval": Kind.TEXT,
        "retries": Kind.TEXT,
    },
    "RUN": {"mount": Kind.TEXTS, "network": Kind.TEXT, "security": Kind.TEXT, "device": Kind.TEXTS},
}


def typed_instruction(node: Node, check: Check) -> Instruction | Stage:
    """`node` checked and typed; a Stage, without commands, for FROM. Raises DockerfileError with its location."""
    name = node.keyword
    build = _BUILDERS.get(name)
    try:
        if build is None:
            raise DockerfileError(f"unknown instruction: {node.name}", did_you_mean(node.name, INSTRUCTIONS))
        return build(node, {"location": node.location, "code": strip(node.code), "check": check})
    except DockerfileError as error:
        raise DockerfileError(error.message, error.hint, location=node.location) from None


_Common = dict[str, Any]


def _flags(node: Node) -> Flags:
    return parse_flags(node.flags, _FLAGS.get(node.keyword, {}))


def _exactly_one(node: Node) -> str:
    _flags(node)
    if len(node.arguments) != 1:
        raise DockerfileError(f"{node.keyword} requires exactly one argument")
    return node.arguments[0]


def _at_least_one(node: Node) -> tuple[str, ...]:
    if not node.arguments:
        raise DockerfileError(f"{node.keyword} requires at least one argument")
    return node.arguments


def _pairs(node: Node) -> tuple[Pair, ...]:
    _flags(node)
    arguments = _at_least_one(node)
    pairs = []
    for key, value, delimiter in zip(arguments[::3], arguments[1::3], arguments[2::3]):
        if not key:
            raise DockerfileError(f"{node.keyword} names can not be blank", "write name=value without blanks")
        pairs.append(Pair(key=key, value=value, legacy=not delimiter))
    return tuple(pairs)


def description(comments: tuple[str, ...], name: str) -> str:
    """What the comment lines above an instruction say about `name`: the rest of the first that begins with it."""
    if not name:
        return ""
    return next((line[len(name) + 1 :] for line in comments if line.startswith(f"{name} ")), "")


def _arg(node: Node, common: _Common) -> Arg:
    # BuildKit ignores flags here; ignoring what somebody asked for is what Limpet does not do.
    _flags(node)
    pairs = []
    for argument in _at_least_one(node):
        key, delimiter, value = argument.partition("=")
        if not key:
            raise DockerfileError("ARG names can not be blank", "write ARG name or ARG name=default")
        pairs.append(Pair(key=key, value=value if delimiter else None, doc=description(node.comments, key)))
    return Arg(args=tuple(pairs), **common)


def _env(node: Node, common: _Common) -> Env:
    return Env(pairs=_pairs(node), **common)


def _label(node: Node, common: _Common) -> Label:
    return Label(pairs=_pairs(node), **common)


def _maintainer(node: Node, common: _Common) -> Maintainer:
    return Maintainer(name=_exactly_one(node), **common)


def _from(node: Node, common: _Common) -> Stage:
    arguments = node.arguments
    name = ""
    if len(arguments) == 3 and arguments[1].lower() == "as":
        name = arguments[2].lower()
        if not _STAGE_NAME.fullmatch(name):
            raise DockerfileError(
                f"invalid name for build stage: {quote(arguments[2])}",
                "a name begins with a letter and has letters, digits and -_. only; variables are not expanded",
            )
    elif len(arguments) != 1:
        raise DockerfileError("FROM requires either one or three arguments", "write FROM image or FROM image AS name")
    return Stage(
        base=arguments[0],
        name=name,
        platform=_flags(node).text("platform"),
        location=node.location,
        code=strip(node.code),
        commands=(),
        doc=description(node.comments, name),
        check=common["check"],
    )


def _shell_or_exec(node: Node, common: _Common) -> _Common:
    return {"shell_form": not node.is_json, "args": node.arguments, "heredocs": node.heredocs, **common}


def _cmd(node: Node, common: _Common) -> Cmd:
    _flags(node)
    return Cmd(**_shell_or_exec(node, common))


def _entrypoint(node: Node, common: _Common) -> Entrypoint:
    _flags(node)
    return Entrypoint(**_shell_or_exec(node, common))


def _run(node: Node, common: _Common) -> Run:
    flags = _flags(node)
    network = flags.text("network", "default")
    if network not in ("default", "none", "host"):
        raise DockerfileError(f"invalid network mode {quote(network)}", "default, none or host")
    security = flags.text("security", "sandbox")
    if security not in ("sandbox", "insecure"):
        raise DockerfileError(f"security {quote(security)} is not valid", "sandbox or insecure")
    return Run(
        mounts=tuple(map(_mount, flags.all("mount"))),
        network=cast(Literal["default", "none", "host"], network),
        security=cast(Literal["sandbox", "insecure"], security),
        devices=flags.all("device"),
        **_shell_or_exec(node, common),
    )


def _mount(text: str) -> Mount:
    try:
        fields = split_csv(text)
    except ValueError as problem:
        raise DockerfileError(
            f"cannot read --mount={text}: {problem}", 'quote a whole field: --mount=type=bind,"source=a,b",target=/c'
        ) from None
    pairs: list[tuple[str, str | None]] = []
    for field in fields:
        key, delimiter, value = field.partition("=")
        key = key.lower()
        if key == "from" and _VARIABLE.search(value):
            raise DockerfileError(
                "'from' doesn't support variable expansion, define alias stage instead",
                f"write FROM {value} AS NAME and --mount=from=NAME",
            )
        pairs.append((key, value if delimiter else None))
    return Mount(fields=tuple(pairs), text=text)


def _sources(node: Node) -> tuple[tuple[str, ...], str, tuple[Heredoc, ...]]:
    """COPY's and ADD's sources, destination and heredocs."""
    name = node.keyword
    if len(node.arguments) < 2:
        raise DockerfileError(
            f"{name} requires at least two arguments, but only one was provided", f"write {name} SOURCE DESTINATION"
        )
    *sources, destination = node.arguments
    if _heredoc(destination):
        raise DockerfileError(f"{name} cannot accept a heredoc as a destination")
    bodies = {heredoc.name: heredoc for heredoc in node.heredocs}
    paths: list[str] = []
    heredocs: list[Heredoc] = []
    for source in sources:
        heredoc = _heredoc(source)
        if heredoc is None:
            paths.append(source)
            continue
        body = bodies.get(heredoc.name, heredoc).content
        content = without_leading_tabs(body) if heredoc.chomp else body
        heredocs.append(Heredoc(heredoc.name, content, expand=heredoc.expand, chomp=heredoc.chomp, fd=heredoc.fd))
    return tuple(paths), destination, tuple(heredocs)


def _heredoc(word: str) -> Heredoc | None:
    try:
        return heredoc_of_word(word)
    except WordError:
        return None  # the unbalanced quote is reported where the path is expanded


def _copy(node: Node, common: _Common) -> Copy:
    flags = _flags(node)
    sources, destination, heredocs = _sources(node)
    return Copy(
        sources=sources,
        destination=destination,
        heredocs=heredocs,
        source_stage=flags.text("from"),
        chown=flags.text("chown"),
        chmod=flags.text("chmod"),
        link=flags.truth("link") or False,
        parents=flags.truth("parents") or False,
        exclude=flags.all("exclude"),
        **common,
    )


def _add(node: Node, common: _Common) -> Add:
    flags = _flags(node)
    sources, destination, heredocs = _sources(node)
    return Add(
        sources=sources,
        destination=destination,
        heredocs=heredocs,
        chown=flags.text("chown"),
        chmod=flags.text("chmod"),
        link=flags.truth("link") or False,
        checksum=flags.text("checksum"),
        keep_git_dir=flags.truth("keep-git-dir"),
        unpack=flags.truth("unpack"),
        exclude=flags.all("exclude"),
        **common,
    )


def _expose(node: Node, common: _Common) -> Expose:
    _flags(node)
    return Expose(ports=tuple(sorted(_at_least_one(node))), **common)


def _volume(node: Node, common: _Common) -> Volume:
    _flags(node)
    paths = tuple(map(strip, _at_least_one(node)))
    if not all(paths):
        raise DockerfileError("VOLUME specified can not be an empty string")
    return Volume(paths=paths, **common)


def _user(node: Node, common: _Common) -> User:
    return User(user=_exactly_one(node), **common)


def _workdir(node: Node, common: _Common) -> Workdir:
    return Workdir(path=_exactly_one(node), **common)


def _stopsignal(node: Node, common: _Common) -> StopSignal:
    return StopSignal(signal=_exactly_one(node), **common)


def _shell(node: Node, common: _Common) -> Shell:
    _flags(node)
    if not _at_least_one(node) or not node.is_json:
        raise DockerfileError("SHELL requires the arguments to be in JSON form", 'write SHELL ["/bin/bash", "-c"]')
    return Shell(shell=node.arguments, **common)


def _healthcheck(node: Node, common: _Common) -> Healthcheck:
    kind, *command = _at_least_one(node)
    flags = _flags(node)
    if kind.upper() == "NONE":
        if command:
            raise DockerfileError("HEALTHCHECK NONE takes no arguments")
        return Healthcheck(test=("NONE",), **common)
    if kind.upper() != "CMD":
        raise DockerfileError(f"unknown type {quote(kind.upper())} in HEALTHCHECK", "write HEALTHCHECK CMD command")
    if not command:
        raise DockerfileError("missing command after HEALTHCHECK CMD")
    return Healthcheck(
        test=("CMD" if node.is_json else "CMD-SHELL", *command),
        interval=_interval(flags, "interval"),
        timeout=_interval(flags, "timeout"),
        start_period=_interval(flags, "start-period"),
        start_interval=_interval(flags, "start-interval"),
        retries=_retries(flags),
        **common,
    )


def _interval(flags: Flags, name: str) -> int:
    text = flags.text(name)
    if not text:
        return 0
    try:
        duration = parse_duration(text)
    except ValueError as problem:
        raise DockerfileError(f"--{name}: {problem}", "write it like 30s or 1m30s") from None
    if duration != 0 and duration < _SHORTEST_INTERVAL:
        raise DockerfileError(f"--{name}={text} cannot be less than 1ms", "0s inherits the base image's value")
    return duration


def _retries(flags: Flags) -> int:
    text = flags.text("retries")
    if not text:
        return 0
    if not re.fullmatch(r"[+-]?[0-9]{1,10}", text) or int(text) >= 2**31:
        raise DockerfileError(f"--retries={text} is not a number")
    if int(text) < 0:
        raise DockerfileError(f"--retries cannot be negative ({text})")
    return int(text)


def _onbuild(node: Node, common: _Common) -> Onbuild:
    _flags(node)
    if node.trigger is None:
        raise DockerfileError("ONBUILD requires at least one argument", "write ONBUILD INSTRUCTION ...")
    name = node.trigger.keyword
    if name == ONBUILD:
        raise DockerfileError("chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if name in ("MAINTAINER", "FROM"):
        raise DockerfileError(f"{name} isn't allowed as an ONBUILD trigger")
    expression = re.sub(r"\A\s*ONBUILD\s*", "", node.code, flags=re.IGNORECASE | re.ASCII)
    for heredoc in node.heredocs:
        expression += f"\n{heredoc.content}{heredoc.name}"
    return Onbuild(expression=expression, **common)


_BUILDERS: Mapping[str, Callable[[Node, _Common], Instruction | Stage]] = {
    "ADD": _add,
    "ARG": _arg,
    "CMD": _cmd,
    "COPY": _copy,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "FROM": _from,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "MAINTAINER": _maintainer,
    "ONBUILD": _onbuild,
    "RUN": _run,
    "SHELL": _shell,
    "STOPSIGNAL": _stopsignal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}
