"""Streams as the field's compressors write them, whole, concatenated, cut and damaged."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import subprocess

import pytest
import zstandard

from builder.errors import ImageError
from builder.layer.compress import Encoding, open_decompressed, sniff

DATA = b"".join(b"%d lines of text\n" % number for number in range(40_000))
COMMANDS: list[tuple[Encoding, list[str]]] = [
    ("gzip", ["gzip", "-c"]),
    ("gzip", ["gzip", "-9", "-c"]),
    ("bzip2", ["bzip2", "-c"]),
    ("xz", ["xz", "-c"]),
    ("zstd", ["zstd", "-q", "-c"]),
    ("zstd", ["zstd", "-q", "-c", "--check", "-T2"]),
    ("zstd", ["zstd", "-q", "-c", "--no-check", "--long=27"]),
]
ENCODINGS: list[Encoding] = ["gzip", "bzip2", "xz", "zstd"]


def compressed(encoding: Encoding, data: bytes) -> bytes:
    return {
        "gzip": gzip.compress,
        "bzip2": bz2.compress,
        "xz": lzma.compress,
        "zstd": zstandard.ZstdCompressor(write_checksum=True).compress,
    }[encoding](data)


def read_all(data: bytes, encoding: Encoding | None = None, step: int = 10_000) -> bytes:
    stream = open_decompressed(io.BytesIO(data), encoding)
    return b"".join(iter(lambda: stream.read(step), b""))


@pytest.mark.parametrize(("encoding", "command"), COMMANDS, ids=lambda value: str(value))
def test_reads_what_the_program_writes(encoding: Encoding, command: list[str]) -> None:
    data = subprocess.run(command, input=DATA, capture_output=True, check=True).stdout
    assert sniff(data[:6]) == encoding
    assert read_all(data) == DATA
    assert read_all(data, encoding, step=7777) == DATA


def test_what_is_not_compressed_passes() -> None:
    assert read_all(DATA) == DATA
    assert read_all(b"") == b""
    assert read_all(b"ab") == b"ab"


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_members_one_after_the_other_are_one_stream(encoding: Encoding) -> None:
    one, two = compressed(encoding, DATA), compressed(encoding, b"more")
    assert read_all(one + two + compressed(encoding, b"")) == DATA + b"more"


def test_zeros_may_pad_a_gzip_stream() -> None:
    assert read_all(compressed("gzip", DATA) + bytes(10_000)) == DATA


def test_skippable_zstd_frames_are_skipped() -> None:
    """As in zstd:chunked layers, which end with one."""
    skippable = b"\x50\x2a\x4d\x18" + (9).to_bytes(4, "little") + b"skip this"
    data = compressed("zstd", DATA)
    assert read_all(skippable + data + skippable) == DATA
    assert sniff(skippable[:6]) == "zstd"


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("kept", [7, 20, 1000, -1, -5])
def test_a_truncated_stream_is_an_error(encoding: Encoding, kept: int) -> None:
    with pytest.raises(ImageError, match=f"(truncated|damaged) {encoding} stream"):
        read_all(compressed(encoding, DATA)[:kept], encoding)


def test_a_zstd_stream_cut_between_blocks_is_an_error() -> None:
    """The library's reader takes this for the end of the stream."""
    writer = zstandard.ZstdCompressor().compressobj()
    data = writer.compress(DATA) + writer.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
    with pytest.raises(ImageError, match="truncated zstd"):
        read_all(data)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_damaged_stream_is_an_error(encoding: Encoding) -> None:
    data = bytearray(compressed(encoding, DATA))
    for position in (len(data) // 2, len(data) - 3):
        damaged = data.copy()
        damaged[position] ^= 0x55
        with pytest.raises(ImageError):
            read_all(bytes(damaged), encoding)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_what_follows_the_stream_must_be_one_too(encoding: Encoding) -> None:
    with pytest.raises(ImageError):
        read_all(compressed(encoding, DATA) + b"garbage that is no header at all", encoding)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_bomb_is_read_in_pieces(encoding: Encoding) -> None:
    stream = open_decompressed(io.BytesIO(compressed(encoding, bytes(50_000_000))))
    assert all(len(stream.read(1000)) <= 1000 for _ in range(100))


def test_reads_into_buffers() -> None:
    """As io.BufferedReader does."""
    assert io.BufferedReader(open_decompressed(io.BytesIO(compressed("gzip", DATA)))).read() == DATA  # type: ignore[type-var]
