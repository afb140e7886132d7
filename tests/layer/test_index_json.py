"""Indexes as JSON: all kinds of changes survive, in any number, and what is no index is said to be none."""

from __future__ import annotations

import json

import pytest

from builder.errors import ImageError
from builder.layer.index_json import decode_index, encode_index
from builder.rootfs.entry import Change, Entry, FileType, Opaque, Whiteout

KINDS: list[Change] = [
    Entry("d", FileType.DIRECTORY, 0o755, 1, 2, 3),
    Entry('d/a,\n["b",\n', FileType.FILE, 0o4711, 1 << 31, 5, 1_700_000_000_123_456_789, 1 << 40),
    Entry("d/\udcff", FileType.SYMLINK, target=',\n"'),
    Entry("d/link", FileType.HARDLINK, target="d/a"),
    Entry("d/tty", FileType.CHARACTER_DEVICE, device=(4, 0)),
    Entry("d/disk", FileType.BLOCK_DEVICE, device=(0, 7), xattrs={"user.a": b"\0,\n"}),
    Whiteout("gone,\n"),
    Opaque("d"),
]


@pytest.mark.parametrize("times", [0, 1, 3000])
def test_what_was_encoded_is_decoded(times: int) -> None:
    assert decode_index(encode_index(KINDS * times)) == KINDS * times


def test_the_changes_may_stand_on_one_line() -> None:
    values = json.loads(encode_index(KINDS * 1000))
    assert decode_index(json.dumps(values, separators=(",", ":")).encode()) == KINDS * 1000


def test_a_number_of_many_changes_is_one_object() -> None:
    entries = [Entry(f"f{number}", FileType.FILE, mtime=1_700_000_000_000_000_000) for number in range(3000)]
    decoded = decode_index(encode_index(entries))
    assert len({id(entry.mtime) for entry in decoded if isinstance(entry, Entry)}) == 1


def test_an_index_that_is_cut_off_is_none() -> None:
    data = encode_index(KINDS * 1000)
    for end in range(0, len(data) - 1, 997):
        with pytest.raises(ImageError):
            decode_index(data[:end])
