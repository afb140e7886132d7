"""A layer cache in a directory."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from builder.cache import CacheDamaged, CacheKey, Entry
from builder.cache.directory import DirectoryCache
from tests.cache.conftest import Told, check_that_what_is_there_may_stay
from tests.images import layer

KEY = CacheKey.of("key")
ENTRY = Entry(layer({"file": b"text" * 1000}), "2026-01-02T03:04:05.000000006Z", "below", "copied")


@pytest.fixture
def cache(tmp_path: Path, told: Told) -> DirectoryCache:
    return DirectoryCache(tmp_path / "cache", told)


def test_what_was_put_is_got(cache: DirectoryCache, told: Told) -> None:
    assert cache.get(KEY) is None
    cache.put(KEY, ENTRY, "RUN make")
    found = cache.get(KEY)
    assert found == ENTRY
    with found.layer.blob.open() as stream, ENTRY.layer.blob.open() as original:
        assert stream.read() == original.read()
    assert cache.get(CacheKey.of("other")) is None
    assert told.messages == []


def test_an_entry_is_an_image_that_other_tools_read(cache: DirectoryCache) -> None:
    cache.put(KEY, ENTRY, "RUN make")
    answer = subprocess.check_output(["skopeo", "inspect", "--config", f"oci:{cache.path / KEY.value}"])
    config = json.loads(answer)
    assert config["rootfs"]["diff_ids"] == [ENTRY.layer.diff_id]
    assert config["created"] == ENTRY.created
    assert config["history"][0]["created_by"] == "RUN make"


def test_putting_again_replaces(cache: DirectoryCache) -> None:
    cache.put(KEY, ENTRY, "RUN make")
    other = Entry(layer({"file": b"other"}), "2027-01-01T00:00:00Z", "below")
    cache.put(KEY, other, "RUN make")
    assert cache.get(KEY) == other
    assert os.listdir(cache.path) == [KEY.value]


def _blob(directory: Path) -> Path:
    return directory / "blobs/sha256" / ENTRY.layer.descriptor.digest.removeprefix("sha256:")


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _manifest(directory: Path) -> Path:
    digest: str = json.loads((directory / "index.json").read_text())["manifests"][0]["digest"]
    return directory / "blobs/sha256" / digest.removeprefix("sha256:")


@pytest.mark.parametrize(
    "damage",
    [
        lambda directory: _blob(directory).unlink(),
        lambda directory: os.truncate(_blob(directory), 10),
        lambda directory: _flip(_blob(directory)),
        lambda directory: _flip(_manifest(directory)),
        lambda directory: _manifest(directory).unlink(),
        lambda directory: (directory / "index.json").write_text(""),
        lambda directory: (directory / "index.json").write_text("[]"),
        lambda directory: (directory / "oci-layout").unlink(),
    ],
)
def test_a_damaged_entry_is_none_and_is_repaired(
    cache: DirectoryCache, told: Told, damage: Callable[[Path], object]
) -> None:
    cache.put(KEY, ENTRY, "RUN make")
    damage(cache.path / KEY.value)
    assert cache.get(KEY) is None
    assert cache.get(KEY) is None
    assert len(told.warnings) == 1
    assert KEY.value in told.warnings[0]
    cache.put(KEY, ENTRY, "RUN make")
    assert cache.get(KEY) == ENTRY


def test_a_layer_that_is_damaged_later_is_noticed(cache: DirectoryCache) -> None:
    cache.put(KEY, ENTRY, "RUN make")
    found = cache.get(KEY)
    assert found is not None
    _flip(_blob(cache.path / KEY.value))
    with pytest.raises(CacheDamaged, match="does not match its digest"), found.layer.blob.open() as stream:
        stream.read()
    _blob(cache.path / KEY.value).unlink()
    with pytest.raises(CacheDamaged):
        found.layer.blob.open()


def test_what_cannot_be_written_is_said_once(tmp_path: Path, told: Told) -> None:
    (tmp_path / "file").write_text("")
    cache = DirectoryCache(tmp_path / "file", told)
    for name in "abc":
        cache.put(CacheKey.of(name), ENTRY, "RUN make")
        assert cache.get(CacheKey.of(name)) is None
    assert len(told.warnings) == 1
    assert "cannot write the cache" in told.warnings[0]


def test_one_that_cannot_be_read_is_empty(tmp_path: Path, told: Told) -> None:
    cache = DirectoryCache(tmp_path / ("x" * 300), told)  # a name that no file can have
    assert cache.get(KEY) is None
    cache.put(KEY, ENTRY, "RUN make")
    assert len(told.warnings) == 1


def test_many_writers_of_one_key_leave_one_whole_entry(cache: DirectoryCache, told: Told) -> None:
    entries = [Entry(layer({"file": bytes([number]) * 5000}), ENTRY.created, "") for number in range(8)]
    threads = [threading.Thread(target=cache.put, args=(KEY, entry, "")) for entry in entries for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cache.get(KEY) in entries
    assert os.listdir(cache.path) == [KEY.value]
    assert told.messages == []


def test_records_are_kept_beside_entries(cache: DirectoryCache, told: Told) -> None:
    assert cache.get_record(KEY) is None
    cache.put_record(KEY, b"1")
    cache.put_record(KEY, b"2")
    assert cache.get_record(KEY) == b"2"
    assert cache.get(KEY) is None
    assert told.messages == []


def test_what_is_there_may_stay(cache: DirectoryCache) -> None:
    check_that_what_is_there_may_stay(cache, KEY, ENTRY)
