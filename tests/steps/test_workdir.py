"""WORKDIR."""

from __future__ import annotations

import pytest

from builder.errors import DockerfileError
from builder.rootfs.entry import Change
from builder.rootfs.tree import Tree
from builder.steps.step import WorkdirStep
from builder.steps.workdir import workdir_changes
from tests.steps.trees import NOW, directory, file, image, step_fields, symlink, tree


def changes(path: str, shown: Tree, user: str = "") -> list[Change]:
    return workdir_changes(WorkdirStep(**step_fields(path=path, user=user)), shown, NOW)


def test_every_missing_directory_belongs_to_the_user() -> None:
    shown = image(directory("srv", 0o711, uid=9))
    assert changes("/srv/a/b", shown, "bob") == [
        directory("srv", 0o711, uid=9),
        directory("srv/a", uid=1000, gid=1001, mtime=NOW),
        directory("srv/a/b", uid=1000, gid=1001, mtime=NOW),
    ]


@pytest.mark.parametrize(
    ("user", "uid", "gid"), [("", 0, 0), ("7", 7, 7), ("7:8", 7, 8), ("bob:wheel", 1000, 10), ("nobody", 0, 0)]
)
def test_owner(user: str, uid: int, gid: int) -> None:
    assert changes("/w", image(), user) == [directory("w", uid=uid, gid=gid, mtime=NOW)]


def test_what_is_there_stays() -> None:
    assert changes("/a/../b/", tree(directory("b", 0o700))) == []
    assert changes("/l/x", tree(symlink("l", "d"), directory("d"), directory("d/x"))) == []


def test_a_dangling_link_gets_its_directory() -> None:
    assert changes("/l", tree(symlink("l", "../../new"))) == [directory("new", mtime=NOW)]


def test_a_file_in_the_way() -> None:
    with pytest.raises(DockerfileError, match="WORKDIR /f/x: /f is not a directory") as failure:
        changes("/f/x", tree(file("f")))
    assert failure.value.location is not None
