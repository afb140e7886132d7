"""Instructions that put files into the image without running anything: COPY, ADD and WORKDIR."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from dataclasses import replace

from builder.dockerfile.instructions import Add, Copy, Heredoc, Workdir
from builder.dockerfile.paths import clean
from builder.dockerfile.quoting import quote
from builder.dockerfile.workdir import join_workdir
from builder.errors import DockerfileError, Location
from builder.oci.descriptor import is_digest
from builder.plan import history
from builder.plan.remote import git_repository, is_remote
from builder.plan.scope import Scope, StageState
from builder.plan.text import one_line
from builder.steps.chmod import parse as parse_chmod
from builder.steps.step import AddStep, ConfigStep, CopyStep, FromContext, HeredocFile, Origin, Step, WorkdirStep


def workdir(instruction: Workdir, state: StageState, scope: Scope) -> tuple[StageState, Step]:
    """WORKDIR: a directory of the image, unless it is `/`, which every image has."""
    written = scope.expand(instruction.path, state, instruction)
    if not state.workdir_set and not written.startswith("/") and scope.has_variables(instruction.path):
        # Without variables, the text alone tells: `builder.dockerfile.lint` does.
        scope.findings.report(
            "WorkdirRelativePath",
            f"Relative workdir {quote(written)} can have unexpected results if the base image changes",
            instruction,
        )
    path = join_workdir(state.config.working_dir, written)
    config = replace(state.config, working_dir=path)
    state = replace(state, config=config, workdir_set=True)
    is_layer = path != "/"
    entry = history.entry(f"WORKDIR {path}", scope.epoch, layer=is_layer)
    text = one_line(instruction.code)
    if not is_layer:
        return state, ConfigStep(location=instruction.location, text=text, exec_config=config, history=entry)
    step = WorkdirStep(
        location=instruction.location, text=text, exec_config=config, history=entry, path=path, user=config.user
    )
    return state, step


def copy(instruction: Copy, state: StageState, scope: Scope) -> tuple[StageState, Step]:
    """COPY: paths of the context, of a named context, a stage or an image."""
    sources = [scope.expand(source, state, instruction) for source in instruction.sources]
    destination = scope.expand(instruction.destination, state, instruction)
    chown, chmod = _ownership(instruction, state, scope)
    for source in sources:
        _refuse_remote(source, instruction.location)
    if not instruction.source_stage:
        scope.findings.report_ignored("Copy", sources, instruction)
    created_by = history.copy(
        "COPY",
        sources,
        [heredoc.name for heredoc in instruction.heredocs],
        destination,
        parents=instruction.parents,
        chown=chown,
        chmod=chmod,
    )
    step = CopyStep(
        location=instruction.location,
        text=one_line(instruction.code),
        exec_config=state.config,
        history=history.entry(created_by, scope.epoch, layer=True, suffix=True),
        origin=_origin(instruction, scope),
        sources=tuple(sources),
        destination=destination_path(state.config.working_dir, destination),
        heredocs=_heredoc_files(instruction, instruction.heredocs, state, scope),
        chown=chown,
        chmod=chmod,
        # A changed mode needs the files' own layer anyway, so BuildKit does not link then.
        link=instruction.link and not chmod,
        parents=instruction.parents,
        exclude=instruction.exclude,
    )
    return state, step


def add(instruction: Add, state: StageState, scope: Scope) -> tuple[StageState, Step]:
    """ADD: paths of the context, URLs and git repositories."""
    sources = [scope.expand(source, state, instruction) for source in instruction.sources]
    destination = scope.expand(instruction.destination, state, instruction)
    checksum = scope.expand(instruction.checksum, state, instruction)
    chown, chmod = _ownership(instruction, state, scope)
    for source in sources:
        _check_git(source, checksum, instruction)
    if checksum:
        _check_checksum(checksum, sources, instruction.location)
    local = [source for source in sources if not is_remote(source, instruction.location)]
    scope.findings.report_ignored("Add", local, instruction)
    created_by = history.copy(
        "ADD",
        sources,
        [heredoc.name for heredoc in instruction.heredocs],
        destination,
        chown=chown,
        chmod=chmod,
    )
    step = AddStep(
        location=instruction.location,
        text=one_line(instruction.code),
        exec_config=state.config,
        history=history.entry(created_by, scope.epoch, layer=True, suffix=True),
        sources=tuple(sources),
        destination=destination_path(state.config.working_dir, destination),
        heredocs=_heredoc_files(instruction, instruction.heredocs, state, scope),
        chown=chown,
        chmod=chmod,
        link=instruction.link and not chmod,
        checksum=checksum,
        keep_git_dir=instruction.keep_git_dir,
        unpack=instruction.unpack,
        exclude=instruction.exclude,
    )
    return state, step


def destination_path(working_dir: str, destination: str) -> str:
    """Absolute and cleaned; a trailing `/` or `/.` stays, and `.` and "" mean the working directory itself."""
    if destination in ("", "."):
        destination = "./"
    path = clean(posixpath.join("/", working_dir, destination))
    ending = next((end for end in ("/.", "/") if destination.endswith(end)), "")
    return path.rstrip("/") + ending if ending else path


def _ownership(instruction: Copy | Add, state: StageState, scope: Scope) -> tuple[str, str]:
    """--chown and --chmod, expanded; the mode is checked."""
    chown = scope.expand(instruction.chown, state, instruction)
    chmod = scope.expand(instruction.chmod, state, instruction)
    if chmod:
        parse_chmod(chmod, instruction.location)
    return chown, chmod


def _heredoc_files(
    instruction: Copy | Add, heredocs: Iterable[Heredoc], state: StageState, scope: Scope
) -> tuple[HeredocFile, ...]:
    files = []
    for heredoc in heredocs:
        content = heredoc.content
        if heredoc.expand:
            content = scope.expand_body(content, state, instruction)
        files.append(HeredocFile(name=heredoc.name, content=content))
    return tuple(files)


def _origin(instruction: Copy, scope: Scope) -> Origin:
    if not instruction.source_stage:
        return FromContext()
    return scope.stages.origin(instruction.source_stage, instruction.location, index_allowed=True)


def _refuse_remote(source: str, location: Location) -> None:
    if is_remote(source, location):
        raise DockerfileError("COPY takes no URL and no git repository", "use ADD", location=location)


def _check_git(source: str, checksum: str, instruction: Add) -> None:
    """A git address may say in its query what flags say, but nothing else.

    Errors do not repeat the address: it may hold a password, expanded from an ARG.
    """
    repository = git_repository(source, instruction.location)
    if repository is None:
        return
    kept = (instruction.keep_git_dir, repository.keep_git_dir)
    contradicted = []
    if None not in kept and kept[0] != kept[1]:
        contradicted.append("--keep-git-dir")
    if checksum and repository.checksum and checksum != repository.checksum:
        contradicted.append("--checksum")
    if contradicted:
        raise DockerfileError(
            f"ADD: the query of the git address contradicts {contradicted[0]}",
            "give one of them",
            location=instruction.location,
        )


def _check_checksum(checksum: str, sources: list[str], location: Location) -> None:
    """--checksum goes with one URL (the digest of the file) or one git repository (the beginning of a commit)."""
    if len(sources) != 1 or not is_remote(sources[0], location):
        raise DockerfileError(
            "ADD --checksum is for one source, a URL or a git repository",
            "give the other sources an ADD of their own",
            location=location,
        )
    if git_repository(sources[0], location) is None and not is_digest(checksum):
        raise DockerfileError(
            f"ADD --checksum={checksum} is not a digest",
            "write it as sha256:<64 hexadecimal digits>",
            location=location,
        )
