"""Users and groups by the root filesystem's own passwd and group files."""

from __future__ import annotations

from dataclasses import dataclass

from builder.rootfs.tree import Tree


@dataclass(frozen=True, slots=True)
class RunUser:
    """Who a RUN step is. `home` is for HOME where the environment has none."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


def run_user(tree: Tree, user: str) -> RunUser:
    """USER as runc reads it. Raises ImageError for a name that the image does not know."""
    raise NotImplementedError


def chown_owner(tree: Tree | None, owner: str) -> tuple[int, int]:
    """(uid, gid) of `--chown` as BuildKit reads it; `tree` None (scratch, --link): names raise ImageError."""
    raise NotImplementedError


def workdir_owner(tree: Tree, user: str) -> tuple[int, int]:
    """(uid, gid) of directories that WORKDIR makes for USER `user`: unknown names are 0:0."""
    raise NotImplementedError
