"""Users and groups by the root filesystem's own passwd and group files.

Three readings, because the field has three: USER as runc reads it for a process, `--chown` as BuildKit reads it
for files, and WORKDIR's lenient mixture.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from builder.errors import ImageError
from builder.rootfs.entry import FileType
from builder.rootfs.paths import resolve
from builder.rootfs.tree import Tree

_USERS_FILE = "etc/passwd"
_GROUPS_FILE = "etc/group"
USER_FILES = frozenset({_USERS_FILE, _GROUPS_FILE})
"""The files that names are looked up in: a tree for these functions has their contents."""

_NUMBER = re.compile(r"[+-]?[0-9]+")
_LARGEST = (1 << 31) - 1  # runc's limit for ids


@dataclass(frozen=True, slots=True)
class RunUser:
    """Who a RUN step is. `home` is for HOME where the environment has none."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


@dataclass(frozen=True, slots=True)
class _User:
    name: str
    uid: int
    gid: int
    home: str


@dataclass(frozen=True, slots=True)
class _Group:
    name: str
    gid: int
    members: tuple[str, ...]


def run_user(tree: Tree, user: str) -> RunUser:
    """USER as runc reads it: "", `name`, `uid`, `name:group`, `uid:gid` and mixtures of them.

    A number is always an id, also when somebody has it as a name. `uid:gid` is taken as it is; a uid that passwd
    does not know has gid 0. Without a group, the primary group is passwd's and the supplementary groups are those
    that list the user. Raises ImageError for a name that the image does not know.
    """
    name, _, group = (part.strip() for part in user.partition(":"))
    uid, gid = _number(name), _number(group)
    if uid is not None and gid is not None:
        _check_range(user, uid, gid)
        return RunUser(uid, gid, (), _home(tree, uid))
    if not name:
        uid = 0
    found = next((one for one in _users(tree) if (one.uid == uid if uid is not None else one.name == name)), None)
    if found is None and uid is None:
        raise ImageError(f"USER {user}: the image's /etc/passwd has no user {name}", "create it in an earlier RUN")
    resolved = found.uid if found else uid or 0
    primary = found.gid if found else 0
    supplementary: tuple[int, ...] = ()
    if group:
        primary = _explicit_group(tree, user, group, gid)
    elif found and found.name:
        supplementary = tuple(one.gid for one in _groups(tree) if found.name in one.members)
    _check_range(user, resolved, primary)
    return RunUser(resolved, primary, supplementary, _home(tree, resolved))


def chown_owner(tree: Tree | None, owner: str, *, unknown_is_root: bool = True) -> tuple[int, int]:
    """(uid, gid) of `--chown=owner` as BuildKit reads it.

    A name without a group brings its primary gid, a number brings itself as gid; `root` is the number 0, whatever
    passwd says, and so is nothing before or after the colon. Unknown names are 0 too; without `unknown_is_root`
    they raise ImageError. `tree` is None where there is no root filesystem to look into (FROM scratch, --link):
    a name then raises ImageError.
    """
    name, colon, group = owner.partition(":")
    uid = _chown_number(name, empty=bool(colon))
    if uid is None:
        found = next((one for one in _users(_must_have(tree, owner)) if one.name == name), None)
        if found is None and not unknown_is_root:
            raise ImageError(
                f"the image's /etc/passwd has no user {name}", "create it in an earlier RUN, or give a number"
            )
        uid, gid = (found.uid, found.gid) if found else (0, 0)
    else:
        gid = uid
    if colon:
        number = _chown_number(group, empty=True)
        if number is None:
            listed = next((one for one in _groups(_must_have(tree, owner)) if one.name == group), None)
            if listed is None and not unknown_is_root:
                raise ImageError(
                    f"the image's /etc/group has no group {group}", "create it in an earlier RUN, or give a number"
                )
            number = listed.gid if listed else 0
        gid = number
    _check_range(owner, uid, gid)
    return uid, gid


def _chown_number(text: str, *, empty: bool) -> int | None:
    return 0 if text == "root" or (empty and not text) else _number(text)


def workdir_owner(tree: Tree, user: str) -> tuple[int, int]:
    """(uid, gid) of the directories that WORKDIR makes while USER is `user`: read like --chown; "" is root."""
    return chown_owner(tree, user) if user else (0, 0)


def _must_have(tree: Tree | None, owner: str) -> Tree:
    if tree is None:
        raise ImageError(
            f"--chown={owner}: there is no /etc/passwd to look names up in",
            "give numbers: names need a base image, and cannot be used with --link",
        )
    return tree


def _explicit_group(tree: Tree, user: str, group: str, gid: int | None) -> int:
    if gid is not None:
        return gid
    listed = next((one for one in _groups(tree) if one.name == group), None)
    if listed is None:
        raise ImageError(f"USER {user}: the image's /etc/group has no group {group}", "create it in an earlier RUN")
    return listed.gid


def _home(tree: Tree, uid: int) -> str:
    found = next((one for one in _users(tree) if one.uid == uid), None)
    return (found.home if found else "") or "/"


def _number(text: str) -> int | None:
    return int(text) if _NUMBER.fullmatch(text) else None


def _check_range(text: str, *ids: int) -> None:
    for number in ids:
        if not 0 <= number <= _LARGEST:
            raise ImageError(f"{text}: ids must be in the range 0-{_LARGEST}")


def _users(tree: Tree) -> Iterator[_User]:
    for fields in _lines(tree, _USERS_FILE):
        fields += [""] * (7 - len(fields))
        yield _User(fields[0], _number(fields[2]) or 0, _number(fields[3]) or 0, fields[5])


def _groups(tree: Tree) -> Iterator[_Group]:
    for fields in _lines(tree, _GROUPS_FILE):
        fields += [""] * (4 - len(fields))
        yield _Group(fields[0], _number(fields[2]) or 0, tuple(fields[3].split(",")) if fields[3] else ())


def _lines(tree: Tree, path: str) -> Iterator[list[str]]:
    """The fields of each line that is not blank; a missing file has no lines."""
    entry = tree.entry(resolve(tree, path))
    if entry is None or entry.type is not FileType.FILE:
        return
    assert entry.content is not None, "a tree without the contents of its user files"
    with entry.content.open() as stream:
        data = stream.read()
    for line in data.decode("utf-8", "surrogateescape").split("\n"):
        if line.strip():
            yield [field.strip() for field in line.strip().split(":")]
