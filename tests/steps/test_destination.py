"""What has been written is what the changes say."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.rootfs.entry import Entry, FileType, Opaque, Whiteout
from builder.rootfs.layered import LayeredTree
from builder.rootfs.tree import Tree
from builder.steps.destination import Destination, Owner, PathBlocked
from tests.steps.trees import NOW, by_path, directory, file, hardlink, listing, symlink, text, tree

Operation = Callable[[Destination], None]

PATHS = st.sampled_from(["a", "b", "a/a", "a/b", "b/a", "a/a/a", "a/a/b", "a/b/a"])


def put(entry: Entry) -> Operation:
    def operation(destination: Destination) -> None:
        if destination.is_directory(entry.path.rpartition("/")[0]):
            destination.put(entry)

    return operation


def make_directories(path: str) -> Operation:
    def operation(destination: Destination) -> None:
        try:
            destination.make_directories(path, 0o711, Owner(1, 2))
        except PathBlocked:
            pass

    return operation


def link(first: str, path: str) -> Operation:
    def operation(destination: Destination) -> None:
        if destination.is_directory(path.rpartition("/")[0]):
            try:
                destination.link(first, path)
            except PathBlocked:
                pass

    return operation


def remove(path: str) -> Operation:
    return lambda destination: destination.remove(path)


OPERATIONS = st.one_of(
    st.builds(lambda path, content: put(file(path, content)), PATHS, st.text("xyz", max_size=3)),
    st.builds(lambda path: put(directory(path, 0o700)), PATHS),
    st.builds(lambda path: put(symlink(path, "nowhere")), PATHS),
    st.builds(make_directories, PATHS),
    st.builds(link, PATHS, PATHS),
    st.builds(remove, PATHS),
)
BASES = st.lists(
    st.one_of(st.builds(file, PATHS, st.text("uvw", max_size=2)), st.builds(directory, PATHS)), max_size=6
).map(lambda entries: tree(*entries))


@given(BASES, st.lists(OPERATIONS, max_size=12))
def test_the_base_with_the_changes_is_what_was_written(base: LayeredTree, operations: list[Operation]) -> None:
    destination = Destination(base, NOW)
    for operation in operations:
        operation(destination)
        for path in listing(destination):
            assert path.rpartition("/")[2] in destination.names(path.rpartition("/")[0])
    assert listing(base.apply(destination.changes())) == listing(destination)
    assert contents(base.apply(destination.changes())) == contents(destination)


@given(BASES, st.lists(OPERATIONS, max_size=12))
def test_changes_are_in_the_order_that_a_layer_needs(base: LayeredTree, operations: list[Operation]) -> None:
    """Directories before what is in them, files before their further names, nothing twice, no parent missing."""
    destination = Destination(base, NOW)
    for operation in operations:
        operation(destination)
    seen: dict[str, FileType] = {}
    for change in destination.changes():
        if isinstance(change, Opaque):
            assert seen[change.path] is FileType.DIRECTORY
            continue
        assert change.path not in seen
        parent = change.path.rpartition("/")[0]
        assert not parent or seen[parent] is FileType.DIRECTORY
        if isinstance(change, Whiteout):
            assert base.entry(change.path) is not None
            continue
        if change.type is FileType.HARDLINK:
            assert seen[change.target] is not FileType.DIRECTORY
        seen[change.path] = change.type


def contents(shown: Tree) -> dict[str, str]:
    return {path: text(entry) for path, entry in listing(shown).items() if entry.type is FileType.FILE}


def test_parents_that_are_there_come_into_the_layer_as_they_are() -> None:
    parent = directory("home/bob", 0o750, uid=1000, gid=1001, xattrs={"user.a": b"b"})
    destination = Destination(tree(directory("home"), parent), NOW)
    destination.put(file("home/bob/x"))
    assert destination.changes() == [directory("home"), parent, file("home/bob/x")]


def test_a_file_that_is_replaced_leaves_its_other_names_one_file() -> None:
    destination = Destination(tree(), NOW)
    destination.put(file("a", "old"))
    for name in "bcd":
        destination.link("a", name)
    destination.put(file("a", "new"))
    changes = by_path(destination.changes())
    assert [text(changes[name]) for name in "ab"] == ["new", "old"]  # type: ignore[arg-type]
    assert changes["c"].target == changes["d"].target == "b"  # type: ignore[union-attr]


def test_a_link_to_a_file_of_the_base_brings_that_file() -> None:
    """A layer is unpacked by itself: what it links to has to be in it."""
    destination = Destination(tree(file("a", "text"), hardlink("b", "a")), NOW)
    destination.link("b", "c")
    assert [change.path for change in destination.changes()] == ["b", "c"]
    assert text(destination.entry("c")) == "text"


def test_a_link_in_place_of_the_directory_with_the_other_name() -> None:
    destination = Destination(tree(directory("d"), file("d/first", "text")), NOW)
    destination.link("d/first", "second")
    destination.link("second", "d")
    assert [text(entry) for entry in (destination.entry("d"), destination.entry("second"))] == ["text", "text"]  # type: ignore[arg-type]
    changes = by_path(destination.changes())
    assert {change.type for change in changes.values() if isinstance(change, Entry)} == {
        FileType.FILE,
        FileType.HARDLINK,
    }


def test_a_removed_directory_that_comes_back_is_empty() -> None:
    destination = Destination(tree(directory("d"), file("d/old")), NOW)
    destination.remove("d")
    destination.put(directory("d"))
    destination.put(file("d/new"))
    assert destination.changes() == [directory("d"), Opaque("d"), file("d/new")]


@pytest.mark.parametrize("path", ["f/x", "f"])
def test_a_file_in_the_way(path: str) -> None:
    destination = Destination(tree(file("f")), NOW)
    with pytest.raises(PathBlocked, match="/f is not a directory"):
        destination.make_directories(path, 0o755, Owner())
    assert destination.changes() == []
