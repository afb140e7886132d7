"""What to say about build arguments that have no effect."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from builder.dockerfile.instructions import Arg, Dockerfile, Instruction
from builder.plan.epoch import NAME as EPOCH
from builder.plan.global_args import AUTOMATIC, declared_names
from builder.plan.scope import PROXIES

HOSTNAME = "BUILDKIT_SANDBOX_HOSTNAME"
CACHE_NAMESPACE = "BUILDKIT_CACHE_MOUNT_NS"
CHECK = "BUILDKIT_DOCKERFILE_CHECK"

_HONOURED = {HOSTNAME, CACHE_NAMESPACE, CHECK, EPOCH, *AUTOMATIC}
_WITHOUT_EFFECT = {
    "BUILDKIT_INLINE_CACHE": "no cache is written into the image; use a cache repository",
    "BUILDKIT_MULTI_PLATFORM": "an image for one platform is pushed without an index",
    "BUILDKIT_CONTEXT_KEEP_GIT_DIR": "whether .git is kept is decided where the context is fetched",
    "BUILDKIT_BUILD_NAME": "builds have no names here",
    "BUILDKIT_SBOM_SCAN_CONTEXT": "no SBOM is made",
    "BUILDKIT_SBOM_SCAN_STAGE": "no SBOM is made",
}
_SYNTAX = "BUILDKIT_SYNTAX"
_OWN_FRONTEND = ("docker/dockerfile", "docker.io/docker/dockerfile")


def notes(dockerfile: Dockerfile, triggers: Iterable[Instruction], build_args: Mapping[str, str]) -> tuple[str, ...]:
    """One line for each thing that the user should know; `triggers` are those of the base images."""
    found = [f"--build-arg {name}: {reason}" for name, reason in _WITHOUT_EFFECT.items() if build_args.get(name)]
    for frontend, where in ((dockerfile.syntax, "# syntax="), (build_args.get(_SYNTAX, ""), f"--build-arg {_SYNTAX}=")):
        if frontend and not _is_own_frontend(frontend):
            found.append(f"{where}{frontend}: other frontends cannot be run; the file is read as a Dockerfile")
    declared = declared_names(dockerfile) | {
        pair.key
        for instruction in (*triggers, *(command for stage in dockerfile.stages for command in stage.commands))
        if isinstance(instruction, Arg)
        for pair in instruction.args
    }
    known = declared | _HONOURED | _WITHOUT_EFFECT.keys() | {_SYNTAX}
    unused = sorted(name for name in build_args if name not in known and name.upper() not in PROXIES)
    if unused:
        found.append(f"no ARG declares --build-arg {', '.join(unused)}: nothing uses it")
    return tuple(found)


def _is_own_frontend(frontend: str) -> bool:
    name = frontend.split("@")[0].split(":")[0]
    return name in (*_OWN_FRONTEND, *(f"{own}-upstream" for own in _OWN_FRONTEND))
