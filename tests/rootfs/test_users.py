"""USER as runc reads it, --chown as BuildKit reads it."""

from __future__ import annotations

import pytest

from builder.errors import ImageError
from builder.rootfs.entry import BytesContent, Entry, FileType
from builder.rootfs.layered import LayeredTree
from builder.rootfs.tree import Tree
from builder.rootfs.users import RunUser, chown_owner, run_user

PASSWD = b"""root:x:0:0:root:/root:/bin/sh

bob:x:1000:1001:Bob:/home/bob:/bin/sh
 spaced : x : 1500 : 1501 : : /home/spaced : /bin/sh
bob:x:9:9:second:/nowhere:
1000:x:77:78:a number as a name:/numbers:
short:x:60
broken:x:what:ever:::
"""
GROUP = b"""root:x:0:
bob:x:1001:
wheel:x:10:root,bob
audio:x:29:bob,spaced
1001:x:88:
docker:x:999
"""


def tree_of(passwd: bytes, group: bytes) -> Tree:
    def file(path: str, data: bytes) -> Entry:
        return Entry(path, FileType.FILE, size=len(data), content=BytesContent(data))

    link = Entry("etc", FileType.SYMLINK, target="/usr/etc")
    return LayeredTree().apply([link, file("usr/etc/passwd", passwd), file("usr/etc/group", group)])


TREE = tree_of(PASSWD, GROUP)


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("", RunUser(0, 0, (10,), "/root")),
        ("root", RunUser(0, 0, (10,), "/root")),
        ("0", RunUser(0, 0, (10,), "/root")),
        ("bob", RunUser(1000, 1001, (10, 29), "/home/bob")),
        ("1000", RunUser(1000, 1001, (10, 29), "/home/bob")),  # an id, though it is also a name
        ("77", RunUser(77, 78, (), "/numbers")),
        ("1000:1001", RunUser(1000, 1001, (), "/home/bob")),
        ("bob:wheel", RunUser(1000, 10, (), "/home/bob")),
        ("bob:5", RunUser(1000, 5, (), "/home/bob")),
        ("bob:1001", RunUser(1000, 1001, (), "/home/bob")),
        ("1234", RunUser(1234, 0, (), "/")),
        ("1234:wheel", RunUser(1234, 10, (), "/")),
        ("1234:4321", RunUser(1234, 4321, (), "/")),
        ("spaced", RunUser(1500, 1501, (29,), "/home/spaced")),
        ("short", RunUser(60, 0, (), "/")),
        ("broken", RunUser(0, 0, (), "/root")),
    ],
)
def test_run_user(user: str, expected: RunUser) -> None:
    assert run_user(TREE, user) == expected


@pytest.mark.parametrize("user", ["nobody", "bob:nogroup", "1234:nogroup", "-1:-1", "4294967295:0", "99999999999"])
def test_run_user_refuses(user: str) -> None:
    with pytest.raises(ImageError):
        run_user(TREE, user)


def test_without_user_files() -> None:
    assert run_user(LayeredTree(), "") == RunUser(0, 0, (), "/")
    assert run_user(LayeredTree(), "5") == RunUser(5, 0, (), "/")
    with pytest.raises(ImageError):
        run_user(LayeredTree(), "root")


@pytest.mark.parametrize(
    ("owner", "expected"),
    [
        ("bob", (1000, 1001)),
        ("bob:wheel", (1000, 10)),
        ("bob:", (1000, 0)),
        (":wheel", (0, 10)),
        ("7", (7, 7)),
        ("01", (1, 1)),
        ("7:", (7, 0)),
        ("7:bob", (7, 1001)),
        ("bob:nogroup", (1000, 0)),
        ("nobody", (0, 0)),
        ("nobody:nogroup", (0, 0)),
        ("7:8", (7, 8)),
    ],
)
def test_chown_owner(owner: str, expected: tuple[int, int]) -> None:
    assert chown_owner(TREE, owner) == expected
    if owner.replace(":", "").isdigit() and not owner.endswith(":"):
        assert chown_owner(None, owner) == expected


@pytest.mark.parametrize("owner", ["bob", "7:bob"])
def test_names_need_a_tree(owner: str) -> None:
    with pytest.raises(ImageError, match="no /etc/passwd"):
        chown_owner(None, owner)
