"""Layers for tests: written by Limpet, or byte by byte."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from builder.layer.index import read_index
from builder.layer.tar_header import END_OF_ARCHIVE, header
from builder.layer.unpack import unpack
from builder.layer.whiteouts import OPAQUE_NAME, PREFIX
from builder.rootfs.entry import Change, Entry, FileType, Opaque, Whiteout
from builder.rootfs.layered import LayeredTree
from builder.rootfs.paths import join

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs uid 0: owners and devices")


def tar_of(changes: Iterable[Change]) -> bytes:
    """An uncompressed layer of `changes`, names as they are given."""
    data = b""
    for change in changes:
        if isinstance(change, Whiteout):
            parent, _, name = change.path.rpartition("/")
            change = Entry(join(parent, PREFIX + name), FileType.FILE)
        elif isinstance(change, Opaque):
            change = Entry(join(change.path, OPAQUE_NAME), FileType.FILE)
        data += header(change, change.mtime)
        if change.content is not None:
            content = change.content.open().read()
            data += content + bytes(-len(content) % 512)
    return data + END_OF_ARCHIVE


def raw_tar(entries: Iterable[tuple[str, Entry]]) -> bytes:
    """A tar whose names are exactly as given, `..` and all."""
    data = b""
    for name, entry in entries:
        content = entry.content.open().read() if entry.content else b""
        data += header(replace(entry, path=name), entry.mtime) + content + bytes(-len(content) % 512)
    return data + END_OF_ARCHIVE


def unpack_all(layers: Iterable[bytes], into: Path) -> None:
    """Unpack uncompressed layers one on the other."""
    into.mkdir()
    for data in layers:
        unpack(io.BytesIO(data), into)


def index_all(layers: Iterable[bytes], spool: Path) -> LayeredTree:
    """The tree of uncompressed layers, contents in `spool`."""
    return LayeredTree.of(read_index(io.BytesIO(data), spool=spool) for data in layers)


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A directory beside the one that is unpacked into; it must stay as it is."""
    directory = tmp_path / "outside"
    directory.mkdir()
    (directory / "file").write_text("untouched")
    os.utime(directory, (1, 1))
    yield directory
    assert os.listdir(directory) == ["file"]
    assert (directory / "file").read_text() == "untouched"
    assert os.stat(directory).st_mtime == 1
