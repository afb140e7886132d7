"""Leaving paths out of a layer: nothing else of it changes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from builder.layer.leave_out import leave_out
from builder.rootfs.entry import BytesContent, Change, Entry, FileType, Opaque, Whiteout
from builder.steps.ignored_paths import ignored_paths

NAMES = st.sampled_from(["a", "a/b", "a/b/c", "ab", "x", "x/y"])


@st.composite
def layers(draw: st.DrawFn) -> list[Change]:
    """Files and links to them, whiteouts and opaque directories; each path once."""
    changes: list[Change] = []
    files: list[str] = []
    for path in draw(st.lists(NAMES, unique=True)):
        kind = draw(st.sampled_from(["file", "link", "gone", "opaque"]))
        if kind == "file" or (kind == "link" and not files):
            files.append(path)
            changes.append(Entry(path, FileType.FILE, size=1, content=BytesContent(path.encode())))
        elif kind == "link":
            changes.append(Entry(path, FileType.HARDLINK, target=draw(st.sampled_from(files))))
        else:
            changes.append(Whiteout(path) if kind == "gone" else Opaque(path))
    return changes


def contents(changes: list[Change]) -> dict[str, bytes]:
    """What a reader finds under each name of a file."""
    found: dict[str, bytes] = {}
    for change in changes:
        if isinstance(change, Entry) and change.type is FileType.FILE:
            assert change.content is not None
            found[change.path] = change.content.open().read()
        elif isinstance(change, Entry):
            found[change.path] = found[change.target]
    return found


@given(layers(), st.lists(st.sampled_from(["/a", "a/b", "/x/*", "/?", "/a[b]"]), max_size=2))
def test_what_is_not_ignored_stays_as_it_was(changes: list[Change], patterns: list[str]) -> None:
    ignored = ignored_paths(patterns)
    kept = leave_out(changes, ignored)
    assert [change.path for change in kept] == [change.path for change in changes if not ignored(change.path)]
    assert contents(kept) == {path: data for path, data in contents(changes).items() if not ignored(path)}


def test_a_pattern_means_whole_names_and_all_below() -> None:
    ignored = ignored_paths(["/a/b", "/home/*/.cache/"])
    assert [path for path in ("a/b", "a/b/c", "home/u/.cache", "home/u/.cache/x/y") if not ignored(path)] == []
    assert [path for path in ("a", "a/bc", "home/u", "home/u/v/.cache", "b") if ignored(path)] == []
