"""WORKDIR: the directory, made if it is not there."""

from __future__ import annotations

from builder.errors import DockerfileError, ImageError
from builder.rootfs import users
from builder.rootfs.entry import Change
from builder.rootfs.paths import normalise, resolve
from builder.rootfs.tree import Tree
from builder.steps.destination import Destination, Owner, PathBlocked
from builder.steps.step import WorkdirStep

_MODE = 0o755


def workdir_changes(step: WorkdirStep, tree: Tree, created: int) -> list[Change]:
    """What `step` changes in `tree`: nothing when its directory exists, which is a layer nevertheless.

    Symlinks are followed inside the root. Every directory made belongs to USER (0:0 if the image does not know it)
    and has the modification time `created`, in nanoseconds. Raises DockerfileError if something else is in the way.
    """
    destination = Destination(tree, created)
    try:
        path = resolve(tree, normalise(step.path))
        owner = Owner(*users.workdir_owner(tree, step.user)) if step.user else Owner()
        destination.make_directories(path, _MODE, owner)
    except (PathBlocked, ImageError) as error:
        raise DockerfileError(
            f"WORKDIR {step.path}: {error.message}",
            error.hint or "choose another directory, or remove what is there in a RUN before",
            location=step.location,
        ) from error
    return destination.changes()
