"""COPY beyond the vectors: what errors say, links, attributes, patterns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.errors import DockerfileError
from builder.rootfs.entry import Entry, FileType
from builder.rootfs.layered import LayeredTree
from builder.rootfs.tree import Tree
from builder.steps.context import ContextTree, IgnoreFile
from builder.steps.copy import CopySettings, copy_changes
from builder.steps.step import HeredocFile
from tests.steps.trees import (
    NOW,
    SETTINGS,
    by_path,
    copy_step,
    directory,
    file,
    hardlink,
    image,
    listing,
    symlink,
    text,
    tree,
)


def copied(source: Tree, destination: LayeredTree, *sources: str, to: str, **fields: Any) -> LayeredTree:
    return destination.apply(copy_changes(copy_step(*sources, to=to, **fields), source, destination, SETTINGS))


def failure(source: Tree, destination: Tree, *sources: str, to: str = "/o/", **fields: Any) -> DockerfileError:
    step = copy_step(*sources, to=to, **fields)
    with pytest.raises(DockerfileError) as caught:
        copy_changes(step, source, destination, SETTINGS)
    assert caught.value.location == step.location
    return caught.value


class TestErrors:
    def test_a_missing_source_is_named_with_what_was_meant(self) -> None:
        error = failure(tree(directory("src"), file("src/main.py")), tree(), "src/mian.py")
        assert error.message == "/src/mian.py does not exist in the build context"
        assert error.hint == "did you mean src/main.py?"

    def test_another_case(self) -> None:
        assert failure(tree(file("README")), tree(), "readme").hint == "did you mean README?"

    def test_the_first_missing_directory_is_what_is_wrong(self) -> None:
        assert failure(tree(directory("srv"), file("srv/x")), tree(), "src/x").hint == "did you mean srv?"

    def test_what_the_ignore_file_excludes(self, tmp_path: Path) -> None:
        (tmp_path / "build").mkdir()
        (tmp_path / "build" / "app").write_text("x")
        source = ContextTree(tmp_path, IgnoreFile(".dockerignore", ("*.o", "build", "!build/lib")))
        error = failure(source, tree(), "build/app")
        assert error.hint == "it is there, but pattern 'build' of .dockerignore excludes it"

    def test_a_dangling_link(self) -> None:
        assert "symbolic link to nowhere" in failure(tree(symlink("l", "nowhere")), tree(), "l").hint

    def test_a_loop_of_links(self) -> None:
        assert "too many levels" in failure(tree(symlink("a", "b"), symlink("b", "a")), tree(), "a").message
        assert "too many levels" in failure(tree(file("f")), tree(symlink("a", "a")), "f", to="/a").message

    def test_a_wildcard_below_a_missing_directory(self) -> None:
        assert failure(tree(), tree(), "no/*.txt").message.startswith("/no does not exist")

    def test_a_missing_source_of_parents(self) -> None:
        error = failure(tree(directory("a"), file("a/b")), tree(), "a/./x", parents=True)
        assert error.message.startswith("/a/x does not exist")

    @pytest.mark.parametrize(
        ("source", "destination"),
        [
            (directory("s"), [file("d")]),
            (directory("s"), [directory("real"), directory("d"), symlink("d/in", "/real")]),
            (file("s/in"), [directory("d"), directory("d/in")]),
        ],
    )
    def test_directories_and_files_do_not_replace_each_other(self, source: Entry, destination: list[Entry]) -> None:
        within = directory("s/in") if source.type is FileType.DIRECTORY else file("s/in")
        error = failure(tree(directory("s"), within), tree(*destination), "s", to="/d")
        assert "copying to /d" in error.message

    def test_a_heredoc_with_a_slash(self) -> None:
        assert "a/b" in failure(tree(), tree(), heredocs=(HeredocFile(name="a/b", content=""),)).message

    def test_a_malformed_exclude_pattern(self) -> None:
        with pytest.raises(DockerfileError, match=r"\[a"):
            copy_changes(copy_step("d", to="/o/", exclude=("[a",)), tree(directory("d")), tree(), SETTINGS)


class TestOwners:
    @pytest.mark.parametrize("owner", ["nobody", "bob:nogroup", "nobody:bob"])
    def test_a_name_that_the_image_does_not_know(self, owner: str) -> None:
        error = failure(tree(file("a")), image(), "a", chown=owner)
        assert f"--chown={owner}" in error.message
        settings = CopySettings(NOW, unknown_owners_are_root=True)
        changes = by_path(copy_changes(copy_step("a", to="/o/", chown=owner), tree(file("a")), image(), settings))
        found = changes["o/a"]
        assert isinstance(found, Entry)
        assert 0 in (found.uid, found.gid)

    def test_names_need_a_root_filesystem(self) -> None:
        assert "--link" in failure(tree(file("a")), image(), "a", chown="bob", link=True).hint

    @pytest.mark.parametrize("owner", ["root", "0", "root:root", "0:root"])
    def test_root_is_a_number(self, owner: str) -> None:
        source = tree(file("a", uid=7, gid=8))
        changes = by_path(copy_changes(copy_step("a", to="/o/", chown=owner, link=True), source, image(), SETTINGS))
        assert changes["o/a"] == file("o/a", uid=0, gid=0)


class TestWhatIsKept:
    def test_attributes_owners_special_bits_and_times(self) -> None:
        entry = file("d/f", "text", mode=0o6755, uid=5, gid=6, mtime=123, xattrs={"security.capability": b"\1"})
        inner = directory("d/in", 0o2770, uid=5, gid=6, mtime=77, xattrs={"user.a": b"b"})
        result = copied(tree(directory("d"), entry, inner), tree(), "d", to="/d")
        assert result.entry("d/f") == entry
        assert result.entry("d/in") == inner

    def test_devices_and_fifos(self) -> None:
        null = Entry("d/null", FileType.CHARACTER_DEVICE, 0o666, device=(1, 3))
        fifo = Entry("d/fifo", FileType.FIFO, 0o600)
        result = copied(tree(directory("d"), null, fifo), tree(), "d", to="/d", chmod="0640")
        assert [result.entry("d/null"), result.entry("d/fifo")] == [
            Entry("d/null", FileType.CHARACTER_DEVICE, 0o640, device=(1, 3)),
            Entry("d/fifo", FileType.FIFO, 0o640),
        ]

    def test_an_existing_directory_keeps_attributes_that_the_source_does_not_have(self) -> None:
        before = tree(directory("o"), directory("o/in", xattrs={"user.old": b"1", "user.both": b"1"}))
        source = tree(directory("d"), directory("d/in", 0o711, xattrs={"user.both": b"2"}))
        found = copied(source, before, "d", to="/o").entry("o/in")
        assert found == directory("o/in", 0o711, xattrs={"user.old": b"1", "user.both": b"2"})

    def test_names_that_are_not_utf8(self) -> None:
        name = "d\udcff"
        result = copied(tree(directory(name), file(f"{name}/\udcfe")), tree(), "d*", to="/o/")
        assert result.names("o") == ["\udcfe"]

    def test_hardlinks_hold_within_a_source_and_not_beyond(self) -> None:
        source = tree(directory("d"), file("d/1", "x"), hardlink("d/2", "d/1"), hardlink("out", "d/1"))
        shown = listing(copied(source, tree(), "d", "out", to="/o/"))
        assert shown["o/2"].target == "same file as o/1"
        assert shown["o/out"].target == ""

    def test_a_later_source_that_replaces_one_of_two_names(self) -> None:
        source = tree(directory("d"), file("d/1", "old"), hardlink("d/2", "d/1"), directory("e"), file("e/1", "new"))
        result = copied(source, tree(), "d", "e", to="/o/")
        assert (text(result.entry("o/1")), text(result.entry("o/2"))) == ("new", "old")


class TestPatterns:
    def test_a_directory_that_is_excluded_but_for_something_in_it(self) -> None:
        source = tree(directory("d"), directory("d/a", 0o700), file("d/a/x"), file("d/a/y"), directory("d/b"))
        result = copied(source, tree(), "d", to="/o", exclude=("**", "!a/x"))
        assert sorted(listing(result, "o")) == ["o/a", "o/a/x"]
        assert result.entry("o/a") == directory("o/a", 0o700)

    def test_such_a_directory_where_one_is_already_gets_its_mode_and_nothing_else(self) -> None:
        before = tree(directory("o"), directory("o/a", 0o755, uid=3, gid=4))
        source = tree(directory("d"), directory("d/a", 0o700, uid=1), file("d/a/x"))
        result = copied(source, before, "d", to="/o", exclude=("a", "!a/x"))
        assert result.entry("o/a") == directory("o/a", 0o700, uid=3, gid=4)

    def test_parents_with_a_pivot_that_has_wildcards(self) -> None:
        source = tree(*(directory(path) for path in ("p1", "p1/a", "p2", "p2/a")), file("p1/a/x"), file("p2/a/y"))
        assert sorted(listing(copied(source, tree(), "p*/./a", to="/o/", parents=True), "o")) == [
            "o/a",
            "o/a/x",
            "o/a/y",
        ]

    def test_parents_of_a_file_beside_others(self) -> None:
        source = tree(directory("a"), directory("a/b"), file("a/b/c"), file("a/b/d"), directory("x"), file("x/c"))
        assert sorted(listing(copied(source, tree(), "a/b/c", to="/o/", parents=True), "o")) == [
            "o/a",
            "o/a/b",
            "o/a/b/c",
        ]


class TestLink:
    def test_the_changes_do_not_depend_on_the_destination(self) -> None:
        source = tree(directory("d"), file("d/x"))
        step = copy_step("d", to="/link/o", link=True)
        plain = copy_changes(step, source, tree(), SETTINGS)
        busy = tree(directory("real", 0o700), symlink("link", "real"), file("o"))
        assert copy_changes(step, source, busy, SETTINGS) == plain
        assert listing(busy.apply(plain))["link/o/x"] == file("link/o/x")

    def test_with_a_mode_it_is_an_ordinary_copy(self) -> None:
        busy = tree(directory("real", 0o700), symlink("link", "real"))
        result = copied(tree(file("a")), busy, "a", to="/link/", link=True, chmod="0600")
        assert result.entry("real/a") == file("real/a", mode=0o600)


NAMES = st.text("abc", min_size=1, max_size=2)
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
ENTRIES = st.lists(
    st.one_of(
        st.builds(lambda path, content, mode: file(path, content, mode=mode), PATHS, NAMES, st.integers(0, 0o7777)),
        st.builds(lambda path, mode: directory(path, mode), PATHS, st.integers(0, 0o7777)),
        st.builds(symlink, PATHS, st.just("nowhere")),
        st.builds(Entry, PATHS, st.just(FileType.FIFO), st.integers(0, 0o7777)),
    ),
    max_size=10,
)


@given(ENTRIES)
def test_a_copied_tree_is_the_tree(entries: list[Entry]) -> None:
    """COPY of everything into an empty place makes the same tree there, and copying that again changes nothing."""
    source = tree(*entries)
    once = copied(source, tree(), ".", to="/")
    assert listing(once) == listing(source)
    assert listing(copied(source, once, ".", to="/")) == listing(source)


@given(ENTRIES, ENTRIES)
def test_a_copy_is_complete_or_an_error(entries: list[Entry], present: list[Entry]) -> None:
    source, before = tree(*entries), tree(*present)
    try:
        after = listing(copied(source, before, ".", to="/"))
    except DockerfileError:
        kinds = {path: entry.type is FileType.DIRECTORY for path, entry in listing(before).items()}
        clash = {p: e.type is FileType.DIRECTORY for p, e in listing(source).items()}
        assert any(kinds.get(path, is_directory) is not is_directory for path, is_directory in clash.items())
        return
    assert {path: after[path] for path in listing(source)} == listing(source)
    assert after.keys() == listing(source).keys() | listing(before).keys()
