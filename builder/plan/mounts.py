"""RUN --mount: what each one is, with its values expanded."""

from __future__ import annotations

from builder.dockerfile.instructions import Mount, Run
from builder.dockerfile.mounts import MountSpec, resolve
from builder.dockerfile.paths import clean
from builder.errors import DockerfileError
from builder.plan.scope import Scope, StageState
from builder.plan.values import SCRATCH
from builder.steps.step import (
    BindMount,
    CacheMount,
    FromContext,
    FromImage,
    Origin,
    RunMount,
    SecretMount,
    SshMount,
    TmpfsMount,
)

_AGENT = "/run/buildkit/ssh_agent"


def run_mounts(instruction: Run, state: StageState, scope: Scope) -> tuple[RunMount, ...]:
    """The mounts of `instruction` in order. Raises DockerfileError for a field that is wrong."""
    mounts: list[RunMount] = []
    agents = 0
    for mount in instruction.mounts:
        spec = _spec(mount, instruction, state, scope)
        if spec.type == "ssh" and not spec.target:
            mounts.append(_ssh(spec, f"{_AGENT}.{agents}"))
        else:
            mounts.append(_mount(spec, instruction, scope))
        agents += spec.type == "ssh"
    return tuple(mounts)


def _spec(mount: Mount, instruction: Run, state: StageState, scope: Scope) -> MountSpec:
    try:
        return resolve(mount, lambda text: scope.expand(text, state, instruction), state.config.working_dir)
    except DockerfileError as error:
        raise DockerfileError(
            f"RUN --mount={mount.text}: {error.message}", error.hint, location=instruction.location
        ) from None


def _mount(spec: MountSpec, instruction: Run, scope: Scope) -> RunMount:
    match spec.type:
        case "bind":
            origin = _origin(spec, instruction, scope) if spec.from_ else FromContext()
            return BindMount(origin=origin, source=_path(spec), target=spec.target, writable=not spec.read_only)
        case "cache":
            return _cache(spec, instruction, scope)
        case "tmpfs":
            return TmpfsMount(target=spec.target, size=spec.size)
        case "secret":
            return SecretMount(
                id=spec.id,
                target=spec.target,
                env=spec.env or "",
                required=spec.required,
                mode=0o400 if spec.mode is None else spec.mode,
                uid=spec.uid or 0,
                gid=spec.gid or 0,
            )
        case "ssh":
            return _ssh(spec, spec.target)


def _cache(spec: MountSpec, instruction: Run, scope: Scope) -> CacheMount:
    """A cache begins empty, or with what `from` has at `source`."""
    origin = _origin(spec, instruction, scope) if spec.from_ else None
    return CacheMount(
        id=f"{scope.cache_namespace}/{spec.id}" if scope.cache_namespace else spec.id,
        target=spec.target,
        sharing=spec.sharing,
        origin=None if origin == FromImage(SCRATCH) else origin,
        source=_path(spec),
        read_only=spec.read_only,
        mode=0o755 if spec.mode is None else spec.mode,
        uid=spec.uid or 0,
        gid=spec.gid or 0,
    )


def _ssh(spec: MountSpec, target: str) -> SshMount:
    return SshMount(
        id=spec.id,
        target=target,
        required=spec.required,
        mode=0o600 if spec.mode is None else spec.mode,
        uid=spec.uid or 0,
        gid=spec.gid or 0,
    )


def _origin(spec: MountSpec, instruction: Run, scope: Scope) -> Origin:
    return scope.stages.origin(spec.from_, instruction.location, index_allowed=False)


def _path(spec: MountSpec) -> str:
    return clean(f"/{spec.source}")
