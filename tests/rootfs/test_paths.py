"""Paths inside a root: the kernel's own resolution is what both others must agree with."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.errors import ImageError
from builder.rootfs import paths
from builder.rootfs.directory import DirectoryTree
from builder.rootfs.entry import Entry, FileType
from builder.rootfs.layered import LayeredTree
from builder.rootfs.paths import normalise, open_in_root, resolve

components = st.sampled_from(["a", "b", "c", "..", ".", "", "gone"])
wild_paths = st.lists(components, min_size=1, max_size=6).map("/".join)
link_targets = st.lists(st.sampled_from(["a", "b", "c", "..", ".", ""]), min_size=1, max_size=4).map("/".join)
shapes = st.dictionaries(
    st.sampled_from(["a", "b", "c", "a/a", "a/b", "b/a", "b/c", "a/a/b"]), st.none() | link_targets.filter(bool)
)


def make(root: str, shape: dict[str, str | None]) -> None:
    """Directories (None) and symlinks; what does not fit under a link or a missing directory is left out."""
    for path, target in sorted(shape.items()):
        parent = os.path.dirname(f"{root}/{path}")
        # A link further up may lead out of the root.
        if os.path.realpath(parent) != f"{os.path.realpath(root)}/{os.path.dirname(path)}".rstrip("/"):
            continue
        if not os.path.isdir(parent):
            continue
        if target is None:
            os.mkdir(f"{root}/{path}")
        else:
            os.symlink(target, f"{root}/{path}")


@settings(max_examples=300, deadline=None)
@given(shapes, wild_paths)
def test_resolution_is_the_kernel_s(shape: dict[str, str | None], path: str) -> None:
    with tempfile.TemporaryDirectory() as root:
        make(root, shape)
        directory = os.open(root, os.O_PATH)
        try:
            answers = [_answer(opener, directory, path, root) for opener in (open_in_root, paths._walk)]
            assert answers[0] == answers[1]
            if isinstance(answers[0], str):
                assert resolve(DirectoryTree(root), path) == answers[0]
        finally:
            os.close(directory)


def _answer(opener: object, directory: int, path: str, root: str) -> str | type[OSError]:
    arguments = (directory, path, os.O_PATH | os.O_CLOEXEC) + ((0,) if opener is paths._walk else ())
    try:
        fd = opener(*arguments)  # type: ignore[operator]
    except OSError as error:
        return type(error)
    try:
        return os.readlink(f"/proc/self/fd/{fd}").removeprefix(root).removeprefix("/")
    finally:
        os.close(fd)


@pytest.mark.parametrize("opener", ["openat2", "by hand"])
def test_links_lead_nowhere_outside(opener: str, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "secret").write_text("secret")
    (root / "secret").write_text("inside")
    for number, target in enumerate(
        ["/secret", "../secret", "../../../../secret", "/../secret", str(tmp_path / "secret")]
    ):
        (root / f"link{number}").symlink_to(target)
    (root / "magic").symlink_to(f"/proc/self/fd/{os.open(tmp_path, os.O_PATH)}/secret")
    directory = os.open(root, os.O_PATH)

    def read(path: str) -> str:
        if opener == "openat2":
            fd = open_in_root(directory, path, os.O_RDONLY)
        else:
            fd = paths._walk(directory, path, os.O_RDONLY | os.O_CLOEXEC, 0)
        with os.fdopen(fd) as file:
            return file.read()

    for path in ("link0", "link1", "link2", "link3", "/../secret", "../secret"):
        assert read(path) == "inside"
    for path in ("link4", "magic"):
        with pytest.raises(FileNotFoundError):
            read(path)


@pytest.mark.parametrize("length", [39, 200, 255])
def test_long_chains_of_links(length: int, tmp_path: Path) -> None:
    """The kernel alone would stop after 40."""
    (tmp_path / "0").write_text("x")
    for number in range(length):
        (tmp_path / str(number + 1)).symlink_to(str(number))
    directory = os.open(tmp_path, os.O_PATH)
    os.close(open_in_root(directory, str(length), os.O_RDONLY))
    assert resolve(DirectoryTree(tmp_path), str(length)) == "0"


def test_loops_end() -> None:
    tree = LayeredTree().apply([Entry("a", FileType.SYMLINK, target="b"), Entry("b", FileType.SYMLINK, target="/a")])
    with pytest.raises(ImageError, match="too many levels"):
        resolve(tree, "a")
    assert resolve(tree, "a", follow_last=False) == "a"


def test_files_can_be_made(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "l").symlink_to("/d")
    directory = os.open(tmp_path, os.O_PATH)
    for name, opener in (("one", open_in_root), ("two", paths._walk)):
        fd = opener(directory, f"l/{name}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        assert not os.get_inheritable(fd)
        os.close(fd)
        assert (tmp_path / "d" / name).stat().st_mode & 0o777 == 0o600


def test_the_last_link_can_be_left_alone() -> None:
    tree = LayeredTree().apply(
        [
            Entry("d/x", FileType.FILE),
            Entry("l", FileType.SYMLINK, target="d"),
            Entry("d/k", FileType.SYMLINK, target="/l"),
        ]
    )
    assert resolve(tree, "l/k", follow_last=False) == "d/k"
    assert resolve(tree, "l/k/", follow_last=False) == "d"
    assert resolve(tree, "l/k/x") == "d/x"
    assert resolve(tree, "l/new/../x/below") == "d/x/below"


@pytest.mark.parametrize(
    ("path", "expected"),
    [("", ""), ("/", ""), (".", ""), ("a", "a"), ("/a//b/", "a/b"), ("./a/./b/.", "a/b"), ("../../a", "a"),
     ("a/../../b", "b"), ("a/..", ""), ("...", "..."), ("a..b/.c", "a..b/.c")],
)  # fmt: skip
def test_normalise(path: str, expected: str) -> None:
    assert normalise(path) == expected
