"""Instructions as data: what a line of a Dockerfile says, before any variable is expanded.

Every field holds text as written (quotes and `$VAR` included) where the language expands it later; see
section 2.1 of the language for what is expanded when.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from builder.errors import Location


@dataclass(frozen=True, slots=True)
class Heredoc:
    """`<<name`: `content` ends with a newline unless empty; `expand` is False for a quoted name; `chomp` for `<<-`.

    RUN's content is as written (`heredoc.without_leading_tabs` does what `chomp` says), COPY's and ADD's is chomped.
    """

    name: str
    content: str
    expand: bool = True
    chomp: bool = False
    fd: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """`# check=...`: which lint rules stay silent (`skip`), which experimental ones speak, and whether a finding fails
    the build (`error`, file level only).
    """

    skip: frozenset[str] = frozenset()
    skip_all: bool = False
    experimental: frozenset[str] = frozenset()
    experimental_all: bool = False
    error: bool = False

    def silences(self, rule: str, *, experimental: bool = False) -> bool:
        """True if findings of `rule` are not to be reported."""
        if self.skip_all or rule in self.skip:
            return True
        return experimental and not (self.experimental_all or rule in self.experimental)

    def merged(self, other: Check) -> Check:
        """Both together: what a file says and what a comment above an instruction adds."""
        return Check(
            skip=self.skip | other.skip,
            skip_all=self.skip_all or other.skip_all,
            experimental=self.experimental | other.experimental,
            experimental_all=self.experimental_all or other.experimental_all,
            error=self.error or other.error,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruction:
    """`code` is the joined line as written, trimmed; `check` has the file's directive merged in."""

    location: Location
    code: str
    check: Check = Check()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """`key=value` of ENV, LABEL and ARG (value None: `ARG key`).

    `legacy` says that it was written `ENV key value`; `doc` is the description of an ARG (`# key description`).
    """

    key: str
    value: str | None
    legacy: bool = False
    doc: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arg(Instruction):
    """ARG, in a stage or before the first one."""

    args: tuple[Pair, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Env(Instruction):
    """ENV."""

    pairs: tuple[Pair, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Label(Instruction):
    """LABEL."""

    pairs: tuple[Pair, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Maintainer(Instruction):
    """MAINTAINER."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ShellOrExec(Instruction):
    """RUN, CMD, ENTRYPOINT: shell form has one argument, the whole text."""

    shell_form: bool
    args: tuple[str, ...]
    heredocs: tuple[Heredoc, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Cmd(ShellOrExec):
    """CMD."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entrypoint(ShellOrExec):
    """ENTRYPOINT."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """`RUN --mount=...`, its fields in the order written; values unexpanded until `mounts.resolve`."""

    fields: tuple[tuple[str, str | None], ...]  # (lower-case key, value or None when there was no `=`)
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Run(ShellOrExec):
    """RUN."""

    mounts: tuple[Mount, ...] = ()
    network: Literal["default", "none", "host"] = "default"
    security: Literal["sandbox", "insecure"] = "sandbox"
    devices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy(Instruction):
    """COPY."""

    sources: tuple[str, ...]  # paths only; heredocs are in `heredocs`, in the order written, after the paths
    destination: str
    heredocs: tuple[Heredoc, ...] = ()
    source_stage: str = ""  # --from
    chown: str = ""
    chmod: str = ""
    link: bool = False
    parents: bool = False
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Add(Instruction):
    """ADD: what COPY has, without `--from`, and what is fetched or unpacked."""

    sources: tuple[str, ...]
    destination: str
    heredocs: tuple[Heredoc, ...] = ()
    chown: str = ""
    chmod: str = ""
    link: bool = False
    checksum: str = ""
    keep_git_dir: bool | None = None
    unpack: bool | None = None
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Expose(Instruction):
    """EXPOSE."""

    ports: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume(Instruction):
    """VOLUME."""

    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class User(Instruction):
    """USER."""

    user: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Workdir(Instruction):
    """WORKDIR."""

    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StopSignal(Instruction):
    """STOPSIGNAL."""

    signal: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Shell(Instruction):
    """SHELL."""

    shell: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Healthcheck(Instruction):
    """Durations in nanoseconds; 0 inherits."""

    test: tuple[str, ...]  # ("NONE",) | ("CMD", ...) | ("CMD-SHELL", text)
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Onbuild(Instruction):
    """`expression` is the trigger, heredoc bodies re-attached."""

    expression: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """`FROM`: `base` and `platform` unexpanded, `name` lower-cased or ""."""

    base: str
    name: str
    platform: str
    location: Location
    code: str
    commands: tuple[Instruction, ...]
    doc: str = ""
    check: Check = Check()


@dataclass(frozen=True, slots=True)
class Warning:  # noqa: A001 - the word that BuildKit's lint uses; shadowing is local to this module
    """A lint finding: `rule` is BuildKit's name of it."""

    rule: str
    message: str
    location: Location


@dataclass(frozen=True, slots=True, kw_only=True)
class Dockerfile:
    """A parsed file; without FROM it has no stages, which is for the plan to refuse.

    `escape` is the escape character in force (backslash or backtick).
    """

    path: str
    meta_args: tuple[Arg, ...]
    stages: tuple[Stage, ...]
    escape: str
    warnings: tuple[Warning, ...]
    check: Check = Check()
    syntax: str = ""  # the frontend that `# syntax=` asks for
