"""Settings -> the objects of the rooms."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import context_sources.source as sources
from builder.cli.known_secrets import MaskedCredentials
from builder.cli.output import Output
from builder.cli.registry_access import RegistryAccess
from builder.cli.settings import CacheSettings, ImageSettings, SourceSettings
from builder.dockerfile.git_reference import GitReference, parse_git_reference
from builder.dockerfile.patterns import PatternMatcher, read_ignore_file
from builder.errors import UsageError
from builder.events import Listener, Message, Transfer
from builder.isolation.removal import remove_large_tree
from builder.layer.format import LayerFormat
from builder.oci.media_types import Compression
from builder.oci.reference import Reference
from builder.once import Once
from builder.plan.history import timestamp
from builder.registry.credentials.chain import Credentials
from builder.registry.registries import Registries
from builder.stage import StageSettings
from builder.steps.download import last_modified
from builder.stopping import Stopping
from builder.urls import without_user
from context_sources.authorities import in_one_file
from context_sources.fetch import fetch
from context_sources.git_address import GitAddress
from context_sources.git_address import parse as parse_git_address
from context_sources.schemes import kind_of

if TYPE_CHECKING:
    from builder.registry.artifact import Artifact
    from builder.store.store import Store
    from context_sources.git import Checkout


def work_parent(asked: Path | None, env: Mapping[str, str]) -> Path:
    """The directory below which a build makes its work directory.

    Without a word of the user's that is in Limpet's own, where it has one: nothing that RUN does to /tmp gets there.
    """
    named = env.get("LIMPET_WORK_DIR") or env.get("KANIKO_DIR") or env.get("TMPDIR")
    own = Path(sys.prefix, "work")
    return asked or Path(named or (own if own.is_dir() else "/var/tmp"))


@contextmanager
def work_directory(asked: Path | None, env: Mapping[str, str]) -> Iterator[Path]:
    """A new directory for everything that the build writes; it is removed whatever happens.

    Raises UsageError when none can be made.
    """
    parent = work_parent(asked, env)
    try:
        parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix="limpet-", dir=parent))
    except OSError as error:
        raise UsageError(
            f"no work directory in {parent}: {error.strerror}", "name a directory that can be written with --work-dir"
        ) from error
    try:
        yield work
    finally:
        remove_large_tree(work)


def registries(access: RegistryAccess, env: Mapping[str, str], output: Output) -> Registries:
    """What speaks with registries. Credentials in files and variables are read now, and masked in the log."""
    credentials = Credentials(env, helpers=access.helpers, listener=output)
    return Registries(access.settings, MaskedCredentials(credentials, output.redactor), env)


def local_store(asked: CacheSettings, listener: Listener) -> Store | None:
    """The store that `--cache-dir` means; None where nobody asked for one and the default is not there."""
    if not asked.make_directory and not asked.directory.is_dir():
        return None
    from builder.store.store import open_store  # as for every other import in a function: few builds need it

    return open_store(asked.directory, listener, create=asked.make_directory, ttl=asked.ttl, size=asked.directory_size)


def fetch_context(
    asked: SourceSettings,
    location: str,
    into: Path,
    env: Mapping[str, str],
    listener: Listener,
    client: Registries,
    stopping: Stopping,
    dockerfile_seen: Callable[[Path], None] = sources.nothing_to_do,
) -> sources.Fetched:
    """The build context at `location`. Raises ContextError, and BuildError when it is `stopping`.

    `dockerfile_seen` is told where the Dockerfile is while the rest is still on its way, if the source can tell.
    """
    name = without_user(location)

    def progress(done: int, total: int) -> None:
        stopping.check()
        listener.tell(Transfer("context", "context", name, done, total))

    def log(level: sources.Level, text: str) -> None:
        stopping.check()  # also before another attempt
        listener.tell(Message(text, level))

    def make_filter(text: str) -> sources.Wanted:
        matcher = PatternMatcher(read_ignore_file(text.encode("utf-8", "surrogateescape")))
        return lambda path: not matcher.excludes(path)

    # Reading all authorities takes longer than many a build, and what lies on this machine needs none.
    local = kind_of(location, env) in ("directory", "tar")
    settings = sources.FetchSettings(
        environment=env if local else in_one_file(env, into.with_name(f"{into.name}-authorities.pem")),
        progress=progress,
        log=log,
        sub_path=asked.sub_path,
        dockerfile=asked.dockerfile,
        limits=sources.Limits(size=asked.max_size, expansion=None) if asked.max_size else sources.Limits(),
        git=git_options(asked.git),
        header_file=Path(asked.header_file) if asked.header_file else None,
        allow_http=asked.allow_http,
        make_filter=make_filter,
        dockerfile_seen=dockerfile_seen,
        registry_pull=lambda text: _pull_artifact(text, client),
    )
    into.mkdir(exist_ok=True)
    return fetch(location, into, settings)


def _pull_artifact(text: str, client: Registries) -> Artifact:
    from builder.registry.artifact import pull_artifact

    return pull_artifact(Reference.parse(text), client)


def git_options(asked: Mapping[str, str]) -> sources.GitOptions:
    """`--git KEY=VALUE`. Raises UsageError for an unknown key or a value that is none."""
    known = ("branch", "single-branch", "depth", "recurse-submodules", "insecure-skip-tls", "keep-git-dir")
    for key in asked:
        if key not in known:
            raise UsageError(f"--git: unknown key {key}", f"the keys are {', '.join(known)}")
    depth = asked.get("depth", "0")
    if not depth.isdigit():
        raise UsageError(f"--git: depth={depth} is not a number", "0 fetches the whole history")
    return sources.GitOptions(
        branch=asked.get("branch", ""),
        single_branch=_boolean(asked, "single-branch") or False,
        depth=int(depth) if "depth" in asked else None,
        recurse_submodules=_boolean(asked, "recurse-submodules"),
        insecure_skip_tls=_boolean(asked, "insecure-skip-tls") or False,
        keep_git_dir=_boolean(asked, "keep-git-dir"),
    )


def _boolean(asked: Mapping[str, str], key: str) -> bool | None:
    if key not in asked:
        return None
    if asked[key].lower() in ("1", "t", "true"):
        return True
    if asked[key].lower() in ("0", "f", "false"):
        return False
    raise UsageError(f"--git: {key}={asked[key]} is neither true nor false")


def stage_settings(asked: ImageSettings, ignore_paths: tuple[str, ...], epoch: int | None) -> StageSettings:
    """How layers are written. `epoch` is SOURCE_DATE_EPOCH; `--reproducible` means the epoch 0."""
    newest = None
    if asked.reproducible:
        epoch = epoch or 0
        newest = epoch * 10**9
    compression: Compression = asked.compression
    level = asked.compression_level if asked.compression_level > 0 else None
    layer_format = LayerFormat(asked.format or "oci", compression, level, newest)
    if asked.compression == "zstd":
        layer_format = LayerFormat("oci", compression, level, newest)
    created = None if epoch is None else timestamp(epoch)
    return StageSettings(layer_format, asked.single_snapshot, created, ignore_paths)


class GitSources:
    """The git repositories that ADD names. Thread-safe. Checkouts lie below `work`, each in a directory of its own."""

    def __init__(self, work: Path, env: Mapping[str, str], listener: Listener) -> None:
        self._work = work
        self._env = env
        self._listener = listener
        self._settings = Once[None, sources.FetchSettings]()

    def fetch(self, reference: GitReference) -> Path:
        """See builder.steps.add.FetchGit."""
        return self._check_out(reference).path

    def tip(self, reference: GitReference) -> str:
        """See builder.step_keys.GitTip."""
        from context_sources.git import tip_of  # few builds need git, and all that it takes

        return tip_of(_git_address(reference), self._fetch_settings())

    def time_of(self, source: str) -> int | None:
        """When a source of ADD was made: the commit of a git repository, what a web server says it last modified."""
        reference = parse_git_reference(source)
        if reference is None or reference.like_local_path:
            return last_modified(source)
        return self._check_out(reference).time

    def _check_out(self, reference: GitReference) -> Checkout:
        from context_sources.git import checkout

        return checkout(
            _git_address(reference),
            Path(tempfile.mkdtemp(prefix="git-", dir=self._work)),
            self._fetch_settings(),
            keep_git_dir=bool(reference.keep_git_dir),
            submodules=reference.submodules is not False,
        )

    def _fetch_settings(self) -> sources.FetchSettings:
        """Made when they are needed: reading all authorities takes longer than many a build."""
        return self._settings.get(None, self._new_settings)

    def _new_settings(self) -> sources.FetchSettings:
        return sources.FetchSettings(
            environment=in_one_file(self._env, self._work / "git-authorities.pem"),
            log=lambda level, text: self._listener.tell(Message(text, level)),
            allow_http=True,
        )


def _git_address(reference: GitReference) -> GitAddress:
    address = parse_git_address(reference.remote)
    return replace(address, ref=reference.ref, checksum=reference.checksum, subdir=reference.subdir)
