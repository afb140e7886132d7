"""RUN --mount: what each one is, with its values expanded."""

from __future__ import annotations

from builder.dockerfile.instructions import Run
from builder.errors import DockerfileError
from builder.plan.scope import Scope, StageState
from builder.steps.step import RunMount


def run_mounts(instruction: Run, state: StageState, scope: Scope) -> tuple[RunMount, ...]:
    """The mounts of `instruction` in order. Raises DockerfileError for a field that is wrong."""
    if instruction.mounts:
        raise DockerfileError("RUN --mount is not planned yet", location=instruction.location)
    return ()
