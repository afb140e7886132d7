"""Random trees, random changes of them, and how two trees are compared."""

from __future__ import annotations

import os
import random
import shutil
import stat
from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from builder.rootfs.entry import BytesContent, Change, Entry, FileType, Opaque, Whiteout
from builder.rootfs.paths import join
from builder.rootfs.tree import Tree

NAMES = ["a", "b", "c", "ö", os.fsdecode(b"\xff\xfe"), "n" * 120]
TARGETS = ["a", "b", "/a", "../b", "a/b", "/", ".", "../../../c", "/c/./a", "nothing"]
XATTRS = [{}, {}, {}, {"user.limits": b"\x00=\n\xff"}, {"user.empty": b"", "user.x": b"1"}]

names = st.sampled_from(NAMES)
paths = st.lists(names, min_size=1, max_size=3).map("/".join)
mtimes = st.sampled_from([0, 1, 1_500_000_000_123_456_789, 1_600_000_000_000_000_000, -1_500_000_000])
owners = st.sampled_from([0, 0, 0, 5, 1000, 3_000_000])
files = st.builds(
    lambda path, data, mode, uid, gid, mtime, xattrs: Entry(
        path, FileType.FILE, mode, uid, gid, mtime, len(data), content=BytesContent(data), xattrs=xattrs
    ),
    paths,
    st.sampled_from([b"", b"x", b"hello\n", bytes(5000), b"1" * 512, b"ab" * 70000]),
    st.sampled_from([0o644, 0o600, 0o755, 0o4755, 0o2711, 0o7777, 0o000, 0o666]),
    owners,
    owners,
    mtimes,
    st.sampled_from(XATTRS),
)
directories = st.builds(
    lambda path, mode, uid, gid, mtime, xattrs: Entry(path, FileType.DIRECTORY, mode, uid, gid, mtime, xattrs=xattrs),
    paths,
    st.sampled_from([0o755, 0o700, 0o1777, 0o2775, 0o000, 0o555]),
    owners,
    owners,
    mtimes,
    st.sampled_from(XATTRS),
)
symlinks = st.builds(
    lambda path, target, uid, mtime: Entry(path, FileType.SYMLINK, 0o777, uid, uid, mtime, target=target),
    paths,
    st.sampled_from(TARGETS),
    owners,
    mtimes,
)
specials = st.builds(
    lambda path, kind, mode, uid, mtime: Entry(
        path, kind, mode, uid, 0, mtime, device=(0, 0) if kind is FileType.FIFO else (1, 3)
    ),
    paths,
    st.sampled_from([FileType.FIFO, FileType.CHARACTER_DEVICE, FileType.BLOCK_DEVICE]),
    st.sampled_from([0o644, 0o666, 0o4755]),
    owners,
    mtimes,
)
removals = paths.map(Whiteout) | paths.map(Opaque)


@st.composite
def layers(draw: st.DrawFn) -> list[Change]:
    """Changes in any order; most hardlinks have a target that an earlier change made."""
    made: list[Change] = draw(st.lists(files | directories | symlinks | specials | removals, max_size=12))
    for position, path in draw(st.lists(st.tuples(st.integers(0, 12), paths), max_size=3)):
        targets = [one.path for one in made[:position] if isinstance(one, Entry) and one.type is FileType.FILE]
        if targets:
            target = draw(st.sampled_from(targets))
            made.insert(position, Entry(path, FileType.HARDLINK, target=target))
    if draw(st.integers(0, 9)) == 0:
        made.append(Entry(draw(paths), FileType.HARDLINK, target=draw(paths)))
    return made


image = st.lists(layers(), min_size=1, max_size=3)


def present(tree: Tree, path: str = "") -> dict[str, Entry]:
    """Everything in `tree` by path, without the root directory."""
    found: dict[str, Entry] = {}
    for name in tree.names(path):
        entry = tree.entry(join(path, name))
        assert entry is not None, join(path, name)
        found[entry.path] = entry
        if entry.type is FileType.DIRECTORY:
            found.update(present(tree, entry.path))
    return found


def comparable(tree: Tree, *, contents: bool = True) -> dict[str, Any]:
    """`tree` as a value that equals another tree's exactly when no program could tell them apart."""
    first: dict[Hashable, str] = {}
    value: dict[str, Any] = {}
    entries = present(tree)
    shared: dict[Hashable, int] = {}
    for entry in entries.values():
        shared[entry.link_id] = shared.get(entry.link_id, 0) + 1
    for path, entry in entries.items():
        data = None
        if contents and entry.type is FileType.FILE:
            assert entry.content is not None
            with entry.content.open() as stream:
                data = stream.read()
        link = ""
        if entry.link_id is not None and shared[entry.link_id] > 1:
            link = first.setdefault(entry.link_id, path)
        value[path] = (replace(entry, content=None, link_id=None, xattrs={}), dict(entry.xattrs), data, link)
    return value


def mutate(root: str, seed: int, steps: int) -> None:
    """Do what a RUN step might do in directory `root`: `steps` changes, chosen by `seed`."""
    rng = random.Random(seed)
    for _ in range(steps):
        every = [join(base, name) for base, below, plain in os.walk(root) for name in below + plain]
        everywhere = [base for base, _, _ in os.walk(root)]
        new = f"{rng.choice(everywhere)}/{rng.choice(NAMES)}"
        old = rng.choice(every) if every else new
        action = rng.choice(_ACTIONS)
        try:
            action(old, new, rng)
        except (FileExistsError, NotADirectoryError, IsADirectoryError, FileNotFoundError):
            pass  # it was not possible here; the next one may be
        except OSError as error:
            if error.errno not in (18, 22, 39, 1, 40):  # EXDEV, EINVAL, ENOTEMPTY, EPERM, ELOOP
                raise


def _write(old: str, new: str, rng: random.Random) -> None:
    # Neither through a link, which may lead out of the tree, nor into a fifo, which would wait for a reader.
    if os.path.lexists(new) and not stat.S_ISREG(os.lstat(new).st_mode):
        return
    with open(new, "wb") as file:
        file.write(rng.randbytes(rng.choice([0, 1, 700])))


def _rewrite(old: str, new: str, rng: random.Random) -> None:
    if stat.S_ISREG(os.lstat(old).st_mode):
        with open(old, "r+b") as file:
            file.write(b"!")


def _remove(old: str, new: str, rng: random.Random) -> None:
    shutil.rmtree(old) if os.path.isdir(old) and not os.path.islink(old) else os.unlink(old)


def _replace_directory(old: str, new: str, rng: random.Random) -> None:
    if os.path.isdir(old) and not os.path.islink(old):
        shutil.rmtree(old)
        os.mkdir(old)
        _write(old, old + "/" + rng.choice(NAMES), rng)


def _chmod(old: str, new: str, rng: random.Random) -> None:
    if not os.path.islink(old):
        os.chmod(old, rng.choice([0o700, 0o4755, 0o1777]))


def _xattr(old: str, new: str, rng: random.Random) -> None:
    if os.path.isdir(old) or stat.S_ISREG(os.lstat(old).st_mode):
        os.setxattr(old, "user.mutated", rng.randbytes(3), follow_symlinks=False)


_ACTIONS: list[Callable[[str, str, random.Random], object]] = [
    _write,
    _rewrite,
    _remove,
    _replace_directory,
    _replace_directory,
    _replace_directory,  # the only one that makes overlayfs mark a directory as opaque
    _chmod,
    _xattr,
    lambda old, new, rng: os.mkdir(new),
    lambda old, new, rng: os.symlink(rng.choice(TARGETS), new),
    lambda old, new, rng: os.link(old, new, follow_symlinks=False),
    lambda old, new, rng: os.rename(old, new),
    lambda old, new, rng: os.mkfifo(new),
    lambda old, new, rng: os.lchown(old, rng.choice([0, 7]), rng.choice([0, 8])),
    lambda old, new, rng: os.mknod(new, stat.S_IFCHR | 0o640, os.makedev(1, 5)),
]
