"""Streams that give out what a descriptor names, or fail."""

from __future__ import annotations

import hashlib
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.errors import ImageError
from builder.oci.descriptor import Descriptor
from builder.oci.verified import digest_of, read_verified, verified


class Dribble:
    """Gives out at most `step` bytes at a time, as sockets do."""

    def __init__(self, data: bytes, step: int) -> None:
        self._stream = io.BytesIO(data)
        self._step = step
        self.closed = False

    def read(self, size: int, /) -> bytes:
        return self._stream.read(min(size, self._step))

    def close(self) -> None:
        self.closed = True


@given(st.binary(max_size=3000), st.integers(1, 700), st.integers(1, 900))
def test_gives_exactly_the_bytes_however_they_come(data: bytes, step: int, ask: int) -> None:
    source = Dribble(data, step)
    got = b""
    with verified(source, Descriptor.of("x", data)) as stream:
        while piece := stream.read(ask):
            got += piece
    assert got == data
    assert source.closed


@given(st.binary(min_size=1, max_size=300), st.data())
def test_a_changed_byte_is_noticed_before_the_end_is_given_out(data: bytes, draw: st.DataObject) -> None:
    where = draw.draw(st.integers(0, len(data) - 1))
    wrong = data[:where] + bytes([data[where] ^ 0x40]) + data[where + 1 :]
    stream = verified(Dribble(wrong, 50), Descriptor.of("x", data), "layer")
    got = b""
    with pytest.raises(ImageError, match="does not match its digest"):
        while piece := stream.read1(10):  # type: ignore[attr-defined]
            got += piece
    assert len(got) < len(data)


def test_a_short_source() -> None:
    with pytest.raises(ImageError, match="layer ends after 3 of 5 bytes"):
        read_verified(Dribble(b"abc", 10), Descriptor.of("x", b"abcde"), "layer")


def test_a_long_source() -> None:
    with pytest.raises(ImageError, match="longer than the 3 bytes"):
        read_verified(Dribble(b"abcde", 10), Descriptor.of("x", b"abc"))


def test_an_empty_blob_is_checked_too() -> None:
    assert read_verified(Dribble(b"", 1), Descriptor.of("x", b"")) == b""
    with pytest.raises(ImageError, match="longer"):
        read_verified(Dribble(b"a", 1), Descriptor.of("x", b""))
    with pytest.raises(ImageError, match="does not match its digest"):
        read_verified(Dribble(b"", 1), Descriptor("x", digest_of(b"a"), 0))


def test_sha512() -> None:
    digest = "sha512:" + hashlib.sha512(b"abc").hexdigest()
    assert digest_of(b"abc", "sha512") == digest
    assert read_verified(Dribble(b"abc", 2), Descriptor("x", digest, 3)) == b"abc"
