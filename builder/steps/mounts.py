"""RUN's mounts: what the instruction says -> what the isolation is to mount."""

from __future__ import annotations

import json
import os
import posixpath
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from builder.errors import DockerfileError, Location
from builder.isolation import AgentSocket, Bind, Cache, ProcessMount, SecretFile, Tmpfs
from builder.rootfs.directory import DirectoryTree
from builder.rootfs.entry import FileType
from builder.rootfs.paths import normalise, resolve
from builder.steps import sources
from builder.steps.cache_mounts import CacheMounts, Fill
from builder.steps.context import ContextTree
from builder.steps.digest import digest
from builder.steps.materialise import materialise
from builder.steps.step import (
    BindMount,
    CacheMount,
    FromContext,
    FromImage,
    FromNamedContext,
    FromStage,
    RunStep,
    SecretMount,
    SshMount,
    TmpfsMount,
)

Contexts = Callable[[FromContext | FromNamedContext], ContextTree]
Directories = Callable[[FromStage | FromImage], Path]


@dataclass(frozen=True, slots=True)
class Secrets:
    """What `--secret` and `--ssh` gave, by id. A path is read anew for every RUN that mounts it."""

    values: Mapping[str, bytes | Path] = field(default_factory=dict, repr=False)
    agents: Mapping[str, Path] = field(default_factory=dict)

    def read(self, secret_id: str, location: Location) -> bytes | None:
        """The bytes of a secret, None if there is none of this id. Raises DockerfileError if it cannot be read."""
        value = self.values.get(secret_id)
        if not isinstance(value, Path):
            return value
        try:
            return value.read_bytes()
        except OSError as error:
            raise DockerfileError(
                f"secret {secret_id} cannot be read: {error.strerror}: {value}", location=location
            ) from error


@dataclass(frozen=True, slots=True)
class Prepared:
    """Mounts that exist, and the variables that secrets add to the environment."""

    mounts: tuple[ProcessMount, ...]
    secret_env: Mapping[str, str] = field(repr=False)


class MountPreparer:
    """Prepares the mounts of a build's RUNs; used by several threads.

    `contexts` gives the trees of contexts, `directories` stages and images as directories, whose owners are the
    image's. Copies of contexts go to `work_dir` and stay for the next RUN; `stopped` ends one that is being made.
    """

    def __init__(
        self,
        contexts: Contexts,
        directories: Directories,
        secrets: Secrets,
        caches: CacheMounts,
        work_dir: Path,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self._contexts = contexts
        self._directories = directories
        self._secrets = secrets
        self._caches = caches
        self._work_dir = work_dir
        self._stopped = stopped
        self._lock = threading.Lock()
        self._copies: dict[tuple[str, str], Path] = {}

    @contextmanager
    def prepare(self, step: RunStep) -> Iterator[Prepared]:
        """The mounts of `step`, for as long as the context lasts: caches stay locked until then.

        Relative targets are below the step's working directory. Raises DockerfileError for a source, a secret or an
        agent that is not there, ContextError when the disk says no.
        """
        with ExitStack() as stack:
            caches = [mount for mount in step.mounts if isinstance(mount, CacheMount)]
            directories = self._lock_caches(caches, step, stack)
            mounts: list[ProcessMount] = []
            secret_env: dict[str, str] = {}
            for mount in step.mounts:
                target = posixpath.join("/", step.cwd, mount.target) if mount.target else ""
                match mount:
                    case BindMount():
                        mounts.append(Bind(self._bind_source(mount, step), target, mount.writable))
                    case CacheMount():
                        mounts.append(Cache(directories[self._cache_key(mount, step)], target, mount.read_only))
                    case TmpfsMount():
                        mounts.append(Tmpfs(target, mount.size))
                    case SecretMount():
                        mounts += self._secret(mount, target, step.location, secret_env)
                    case SshMount():
                        mounts += self._agent(mount, target, step.location)
            yield Prepared(tuple(mounts), secret_env)

    def _secret(
        self, mount: SecretMount, target: str, location: Location, secret_env: dict[str, str]
    ) -> Sequence[SecretFile]:
        data = self._secrets.read(mount.id, location)
        if data is None:
            if mount.required:
                raise DockerfileError(
                    f"RUN --mount=type=secret needs the secret {mount.id}, which was not given",
                    f"pass it with --secret id={mount.id},src=FILE or --secret id={mount.id},env=VARIABLE",
                    location=location,
                )
            return ()
        if mount.env:
            if b"\0" in data:
                raise DockerfileError(
                    f"secret {mount.id} has a NUL byte, which no variable can hold",
                    "mount it as a file",
                    location=location,
                )
            secret_env[mount.env] = os.fsdecode(data)
        return [SecretFile(target, data, mount.uid, mount.gid, mount.mode)] if target else ()

    def _agent(self, mount: SshMount, target: str, location: Location) -> Sequence[AgentSocket]:
        socket = self._secrets.agents.get(mount.id)
        if socket is None:
            if mount.required:
                given = "--ssh default" if mount.id == "default" else f"--ssh {mount.id}=SOCKET"
                raise DockerfileError(
                    f"RUN --mount=type=ssh needs the agent {mount.id}, which was not given",
                    f"pass it with {given}",
                    location=location,
                )
            return ()
        return [AgentSocket(socket, target, mount.uid, mount.gid, mount.mode)]

    def _bind_source(self, mount: BindMount, step: RunStep) -> Path:
        tree, path = self._find(mount, step)
        if isinstance(tree, ContextTree):
            return Path(tree.location(path)) if tree.is_as_on_disk(path) else self._copy(tree, path)
        return Path(tree.location(path))

    def _find(self, mount: BindMount | CacheMount, step: RunStep) -> tuple[ContextTree | DirectoryTree, str]:
        """The tree that `mount` reads from, and where in it, symlinks followed inside it."""
        assert mount.origin is not None
        tree: ContextTree | DirectoryTree
        match mount.origin:
            case FromContext():
                tree, place = self._contexts(mount.origin), "the build context"
            case FromNamedContext(name):
                tree, place = self._contexts(mount.origin), f"the context {name}"
            case FromStage() as origin:
                tree, place = DirectoryTree(self._directories(origin)), "the stage"
            case FromImage(reference) as origin:
                tree, place = DirectoryTree(self._directories(origin)), reference
        path = resolve(tree, normalise(mount.source))
        if tree.entry(path) is None:
            raise sources.missing(tree, normalise(mount.source), step.location, place)
        return tree, path

    def _copy(self, tree: ContextTree, path: str) -> Path:
        with self._lock:
            key = (tree.path, path)
            copy = self._copies.get(key)
            if copy is None:
                copy = Path(tempfile.mkdtemp(prefix="bind-", dir=self._work_dir)) / "source"
                materialise(tree, path, copy, link=True, stopped=self._stopped)
                self._copies[key] = copy
            return copy

    def _lock_caches(self, mounts: Sequence[CacheMount], step: RunStep, stack: ExitStack) -> dict[str, Path]:
        """The directory of each cache, by key. One order for all RUNs: two of them cannot wait for each other."""
        wanted = {self._cache_key(mount, step): mount for mount in mounts}
        return {
            key: stack.enter_context(self._caches.use(wanted[key], key, self._fill(wanted[key], step)))
            for key in sorted(wanted)
        }

    def _cache_key(self, mount: CacheMount, step: RunStep) -> str:
        """What makes two caches the same: the id, and how a new one begins (as in BuildKit)."""
        if mount.origin is None:
            start = ""
        else:
            tree, path = self._find(mount, step)
            start = digest(tree, path)
        return json.dumps([mount.id, start, f"{mount.mode:04o}", mount.uid, mount.gid])

    def _fill(self, mount: CacheMount, step: RunStep) -> Fill | None:
        if mount.origin is None:
            return None
        tree, path = self._find(mount, step)
        entry = tree.entry(path)
        if entry is None or entry.type is not FileType.DIRECTORY:
            raise DockerfileError(f"a cache cannot begin with {mount.source}, a file", location=step.location)
        return lambda into: materialise(tree, path, into, link=False, stopped=self._stopped)
