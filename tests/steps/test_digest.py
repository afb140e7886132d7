"""Digests for cache keys: what counts and what does not."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.rootfs.entry import Entry, FileContent, FileType
from builder.steps.context import ContextTree
from builder.steps.digest import digest, selection_digest
from builder.steps.sources import Selection
from tests.steps.trees import directory, file, hardlink, listing, symlink, tree

BASE = (directory("d"), file("d/f", "text"), symlink("d/l", "f"), hardlink("d/h", "d/f"))


@pytest.mark.parametrize(
    "changed",
    [
        file("d/f", "Text"),
        file("d/f", "text", mode=0o600),
        file("d/f", "text", uid=1),
        file("d/f", "text", gid=1),
        file("d/f", "text", xattrs={"user.a": b""}),
        directory("d", 0o700),
        symlink("d/l", "h"),
        file("d/l", "f"),
        file("d/h", "text"),
        file("d/new"),
        Entry("d/dev", FileType.CHARACTER_DEVICE, device=(1, 3)),
    ],
)
def test_every_change_counts(changed: Entry) -> None:
    assert digest(tree(*BASE, changed), "d") != digest(tree(*BASE), "d")


def test_times_do_not_count() -> None:
    assert digest(tree(*(replace(entry, mtime=99) for entry in BASE)), "d") == digest(tree(*BASE), "d")


def test_modes_count_as_far_as_the_mask_says() -> None:
    group_writable = tree(directory("d", 0o775), file("d/f", "text", mode=0o664), *BASE[2:])
    assert digest(group_writable, "d", mode_mask=0o7755) == digest(tree(*BASE), "d", mode_mask=0o7755)


def test_links_are_followed_where_they_are_asked_for() -> None:
    shown = tree(*BASE, symlink("link", "d"))
    assert digest(shown, "link") != digest(shown, "d")  # another name
    assert digest(shown, "link") != digest(tree(*BASE, symlink("link", "nowhere")), "link")


def test_nothing_there_counts() -> None:
    assert len({digest(tree(), "a"), digest(tree(), "b"), digest(tree(), "a", "b"), digest(tree(file("a")), "a")}) == 4


def test_whose_checkout_it_is_and_where_does_not_count(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name / "d").mkdir(parents=True)
        (tmp_path / name / "d" / "large").write_bytes(bytes(1 << 20) + b"end")
        (tmp_path / name / "d" / "small").write_text("x")
    if os.geteuid() == 0:
        shutil.chown(tmp_path / "two" / "d" / "small", 1000, 1000)
    assert digest(ContextTree(tmp_path / "one"), "") == digest(ContextTree(tmp_path / "two"), "")
    (tmp_path / "two" / "d" / "large").write_bytes(bytes(1 << 20) + b"End")
    assert digest(ContextTree(tmp_path / "one"), "") != digest(ContextTree(tmp_path / "two"), "")


def test_a_large_file_before_small_ones_keeps_its_place(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(1 << 20))
    large = Entry("a", FileType.FILE, size=1 << 20, content=FileContent(str(tmp_path / "large")))
    others = [file(f"b{number}", "x") for number in range(100)]
    assert digest(tree(large, *others), "") == digest(tree(*others, large), "")


class TestSelection:
    SOURCE = tree(directory("d"), file("d/a", "a"), file("d/b", "b"), file("e", "e"))

    def key(self, *sources: str, **fields: object) -> str:
        return selection_digest(self.SOURCE, Selection(sources, **fields), None, "")  # type: ignore[arg-type]

    def test_only_what_is_read_counts(self) -> None:
        other = tree(*(entry for entry in listing(self.SOURCE).values() if entry.path != "e"), file("e", "E"))
        for selection in (Selection(("d",)), Selection(("d/*",)), Selection((".",), exclude=("e",))):
            assert selection_digest(other, selection, None, "") == selection_digest(self.SOURCE, selection, None, "")
        assert selection_digest(other, Selection((".",)), None, "") != self.key(".")

    def test_names_order_and_flags_count(self) -> None:
        keys = [
            self.key("d/a"),
            self.key("d/b"),
            self.key("d/a", "d/b"),
            self.key("d/b", "d/a"),
            self.key("d"),
            self.key("d", exclude=("a",)),
            self.key("d/a", parents=True),
            self.key("d/./a", parents=True),
        ]
        assert len(set(keys)) == len(keys)

    def test_the_same_content_by_another_name_is_something_else(self) -> None:
        renamed = tree(directory("d"), file("d/c", "a"))
        assert selection_digest(renamed, Selection(("d/*",)), None, "") != self.key("d/a")


NAMES = st.text("ab/", min_size=1, max_size=4).map(lambda name: "/".join(filter(None, name.split("/"))) or "a")
TREES = st.lists(
    st.one_of(
        st.builds(file, NAMES, st.text("ab", max_size=3)),
        st.builds(directory, NAMES),
        st.builds(symlink, NAMES, st.just("x")),
    ),
    max_size=5,
).map(lambda entries: tree(*entries))


@given(TREES, TREES)
def test_two_trees_have_one_digest_only_if_they_are_equal(one: object, two: object) -> None:
    def described(shown: object) -> list[tuple[Entry, bytes]]:
        entries = listing(shown).values()  # type: ignore[arg-type]
        return [(replace(e, mtime=0), e.content.open().read() if e.content else b"") for e in entries]

    same = described(one) == described(two)
    assert (digest(one, "") == digest(two, "")) is same  # type: ignore[arg-type]
