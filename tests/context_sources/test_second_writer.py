"""Files that a second process makes: the tree is the one that a single process makes, whatever happens."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builder.errors import ContextError
from context_sources.second_writer import MOST_FILES, SecondWriter
from context_sources.tree_writer import TreeWriter

two_processors = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="there is no second process")
TIME = 10**18
Operation = Callable[[TreeWriter], None]

PATHS = st.sampled_from([b"a", b"b", b"d/a", b"d/b", b"d/./a", b"d/e/a", b"d/e/f/a", b"d/e", b"d/a/x", b"a/x", b"../a"])
CONTENTS = st.binary(max_size=8)


def in_pieces(content: bytes) -> Iterator[bytes]:
    """As a large file comes: the writer makes it itself."""
    yield content


def small(path: bytes, mode: int, content: bytes) -> Operation:
    return lambda tree: tree.file(path, mode, TIME, (content,))


def large(path: bytes, content: bytes) -> Operation:
    return lambda tree: tree.file(path, 0o644, TIME, in_pieces(content))


def directory(path: bytes, mode: int) -> Operation:
    return lambda tree: tree.directory(path, mode, TIME)


def symlink(path: bytes, target: bytes) -> Operation:
    return lambda tree: tree.symlink(path, target, TIME)


def hardlink(path: bytes, target: bytes) -> Operation:
    return lambda tree: tree.hardlink(path, target)


OPERATIONS = st.lists(
    st.one_of(
        st.builds(small, PATHS, st.sampled_from([0o644, 0o600, 0o755, 0o4755, 0o666]), CONTENTS),
        st.builds(small, st.sampled_from([b"d/a", b"d/b", b"d/c", b"d/e/a", b"d/e/b"]), st.just(0o644), CONTENTS),
        st.builds(large, PATHS, CONTENTS),
        st.builds(directory, PATHS, st.sampled_from([0o755, 0o700])),
        st.builds(symlink, PATHS, st.sampled_from([b"d", b"a", b"/etc"])),
        st.builds(hardlink, PATHS, PATHS),
    ),
    max_size=12,
)


def written(root: Path, operations: list[Operation], many: int) -> str:
    """What went wrong, if anything did."""
    try:
        with TreeWriter(root, "archive", many) as tree:
            for operation in operations:
                operation(tree)
            tree.finish()
    except ContextError as error:
        return str(error)
    return ""


def tree_of(root: Path) -> dict[str, object]:
    found: dict[str, object] = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        target = os.readlink(path) if path.is_symlink() else ""
        time = status.st_mtime_ns if status.st_mtime_ns == TIME else 0  # a directory without an entry is of now
        found[str(path.relative_to(root))] = (status.st_mode, time, status.st_nlink, content, target)
    return found


@two_processors
@given(operations=OPERATIONS)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_two_processes_make_the_tree_of_one(
    operations: list[Operation], tmp_path_factory: pytest.TempPathFactory
) -> None:
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    error = written(one, operations, many=-1)
    # Of several things that are wrong, the one that the second process meets is told later.
    assert bool(written(two, operations, many=1)) == bool(error)
    if not error:  # after an error all is thrown away
        assert tree_of(two) == tree_of(one)


@two_processors
def test_a_second_process_that_ends_early_is_made_up_for(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    files = [small(b"d/%d" % number, 0o644, b"%d" % number) for number in range(5 * MOST_FILES)]

    def end(tree: TreeWriter) -> None:
        assert tree._second is not None
        tree._second._process.kill()

    assert written(one, files, many=-1) == ""
    assert written(two, [*files[: 2 * MOST_FILES], end, *files[2 * MOST_FILES :]], many=1) == ""
    assert tree_of(two) == tree_of(one)
    assert len(tree_of(two)) == len(files) + 1


def test_what_cannot_be_made_is_given_back_with_all_that_follows(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/1").write_text("there already")
    root = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    writer = SecondWriter(root, 0)
    try:
        files = [(b"d", b"%d" % number, 0o644, 0, b"new") for number in range(3)]
        assert [writer.give(file) for file in files] == [[], [], []]
        assert writer.is_under_way(b"d/2")
        assert writer.settle() == files[1:]
    finally:
        writer.close()
        os.close(root)
    assert (tmp_path / "d/0").read_text() == "new"
    assert (tmp_path / "d/1").read_text() == "there already"
    assert not (tmp_path / "d/2").exists()
