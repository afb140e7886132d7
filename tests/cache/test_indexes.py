"""Indexes of layers in a layer cache are right, or not used."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from builder.cache import Entry
from builder.cache.directory import DirectoryCache
from builder.cache.indexes import CachedIndexes, key_of
from builder.layer.index import read_index
from builder.layer.unpack import unpack
from builder.oci.media_types import layer_compression
from builder.rootfs.entry import Change
from builder.rootfs.entry import Entry as File
from tests.cache.conftest import Told
from tests.images import layer

PASSWD = b"user:x:7:7::/:/bin/sh\n"
LAYER = layer({"etc/passwd": PASSWD, "etc/shadow": b"secret", "large": os.urandom(40_000)})


@pytest.fixture
def cache(tmp_path: Path, told: Told) -> DirectoryCache:
    return DirectoryCache(tmp_path / "cache", told)


def indexes(cache: DirectoryCache, told: Told, *, write: bool = True) -> CachedIndexes:
    made = CachedIndexes(cache.path.parent, told)
    made.begin(cache, write=write, meanwhile=True)
    return made


def changes_of_layer() -> list[Change]:
    with LAYER.blob.open() as stream:
        return read_index(stream, compression=layer_compression(LAYER.descriptor.media_type), diff_id=LAYER.diff_id)


def put(cache: DirectoryCache, told: Told) -> None:
    made = indexes(cache, told)
    made.put(LAYER, changes_of_layer())
    made.finish()


def test_what_was_put_is_got(cache: DirectoryCache, told: Told) -> None:
    assert indexes(cache, told).get(LAYER) is None
    put(cache, told)
    assert indexes(cache, told).get(LAYER) == changes_of_layer()
    assert told.warnings == []


def test_unpacking_sees_what_the_layer_has(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    seen: list[Change] = []
    with LAYER.blob.open() as stream:
        unpack(
            stream, tmp_path / "root", compression=layer_compression(LAYER.descriptor.media_type), seen=seen,
            not_applied=lambda entry, what: None,
        )  # fmt: skip
    assert seen == changes_of_layer()
    contents = {change.path: change.content for change in seen if isinstance(change, File)}
    passwd = contents.pop("etc/passwd")
    assert passwd is not None and passwd.open().read() == PASSWD == (tmp_path / "root/etc/passwd").read_bytes()
    assert set(contents.values()) == {None}


@pytest.mark.parametrize(
    "files",
    [
        {"other": b"text"},
        {"index.json": b"garbage"},
        {"index.json": b'{"diff_id": "sha256:' + b"0" * 64 + b'"}\n[]'},
        {"index.json": b'{"diff_id": "' + LAYER.diff_id.encode() + b'"}\n[["?", "path"]]'},
        {"index.json": b'{"diff_id": "' + LAYER.diff_id.encode() + b'"}\n{"a": 1}'},
        {"index.json": b'{"diff_id": "' + LAYER.diff_id.encode() + b'"}\n' + b"[" * 200_000},
        {"index.json": b"[" * 200_000},
    ],
    ids=["no index", "garbage", "of another layer", "unknown changes", "no list", "nested", "nested head"],
)
def test_what_is_no_index_is_not_used_and_replaced(cache: DirectoryCache, told: Told, files: dict[str, bytes]) -> None:
    cache.put(key_of(LAYER), Entry(layer(files), "2024-01-01T00:00:00Z", ""), "")
    assert indexes(cache, told).get(LAYER) is None
    put(cache, told)
    assert indexes(cache, told).get(LAYER) == changes_of_layer()


def test_nothing_is_written_where_nothing_may_be(cache: DirectoryCache, told: Told) -> None:
    made = indexes(cache, told, write=False)
    made.put(LAYER, changes_of_layer())
    made.finish()
    assert not cache.path.exists()


def test_small_layers_have_no_index(cache: DirectoryCache, told: Told) -> None:
    made = indexes(cache, told)
    made.put(layer({"file": b"text"}), [])
    made.finish()
    assert not cache.path.exists()
