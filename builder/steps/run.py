"""RUN: the process that it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from builder.errors import DockerfileError, ImageError
from builder.isolation import Process, SecretFile
from builder.rootfs import users
from builder.rootfs.tree import Tree
from builder.steps.mounts import MountPreparer
from builder.steps.step import RunStep

_PIPES = "/dev/pipes"
_PIPE_MODE = 0o755


@contextmanager
def run_process(
    step: RunStep, tree: Tree, preparer: MountPreparer, output: Callable[[bytes], None]
) -> Iterator[Process]:
    """The process of `step` in the root filesystem `tree`; its mounts exist as long as the context lasts.

    USER is looked up in `tree` as runc does. HOME is the user's unless the environment has one. Secrets that the
    step mounts as variables are in the environment of this process and nowhere else. Raises DockerfileError.
    """
    try:
        user = users.run_user(tree, step.user)
    except ImageError as error:
        raise DockerfileError(error.message, error.hint, location=step.location) from error
    with preparer.prepare(step) as prepared:
        scripts = tuple(_script(name, text) for name, text in step.pipes.items())
        yield Process(
            argv=step.argv,
            env=_environment(step.env, user.home, prepared.secret_env),
            cwd=step.cwd,
            uid=user.uid,
            gid=user.gid,
            groups=user.groups,
            mounts=(*prepared.mounts, *scripts),
            network=step.network,
            insecure=step.security == "insecure",
            output=output,
        )


def _environment(env: Mapping[str, str], home: str, secret_env: Mapping[str, str]) -> dict[str, str]:
    environment = dict(env)
    if not environment.get("HOME"):  # as runc: an empty HOME is none
        environment["HOME"] = home
    return {**environment, **secret_env}


def _script(name: str, text: str) -> SecretFile:
    """A heredoc that is a program: a file that only this process sees."""
    return SecretFile(f"{_PIPES}/{name}", text.encode(errors="surrogateescape"), mode=_PIPE_MODE)
