"""Listing and pruning layer caches, by the functions and by the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.cache import CacheKey, Entry
from builder.cache.directory import DirectoryCache
from builder.cache.entry import LayerCache
from builder.cache.indexes import CachedIndexes, key_of
from builder.cache.inventory import Item, removable
from builder.cache.record import BuildRecord, RecordedStage, RecordedStep
from builder.cache.repository import RepositoryCache
from builder.oci.reference import Reference
from builder.registry.credentials import Credentials
from builder.registry.registries import Registries
from builder.registry.settings import RegistrySettings
from builder.rootfs.entry import Entry as File
from builder.rootfs.entry import FileType
from tests.cache.conftest import Told
from tests.images import layer, noise
from tests.servers.front import Answer, Front
from tests.servers.registry import RegistryServer

HOUR = 3600.0
KEYS = [CacheKey.of(name) for name in "abc"]  # made 1, 2 and 3 days ago
USED = KEYS[1]  # the only one that the record tells of
ROOT = Path(__file__).parents[2]


def fill(cache: LayerCache) -> None:
    """Three entries of about 1000 bytes, and a record."""
    for days, key in enumerate(KEYS, 1):
        created = datetime.fromtimestamp(time.time() - days * 24 * HOUR, UTC).isoformat()
        cache.put(key, Entry(layer({"file": noise(800, days)}), created, "below"), f"RUN {days}")
    record = BuildRecord({"s": RecordedStage({}, (RecordedStep("RUN 2", USED.value, {}),))})
    cache.put_record(CacheKey.of("record"), record.encode())


@pytest.fixture(params=["directory", "registry"])
def cache(request: pytest.FixtureRequest, tmp_path: Path, told: Told, name: str) -> str:
    """What --cache-repo calls a filled cache."""
    if request.param == "directory":
        fill(DirectoryCache(tmp_path / "cache", told))
        return f"oci:{tmp_path / 'cache'}"
    server: RegistryServer = request.getfixturevalue("server")
    return fill_repository(f"{server.host}/{name}", told)


def fill_repository(reference: str, told: Told) -> str:
    registries = Registries(RegistrySettings(), Credentials({}), {})
    cache = RepositoryCache(Reference.parse(reference), registries, told)
    fill(cache)
    cache.close(cancel=False)
    registries.close()
    assert told.warnings == []
    return reference


def limpet(*arguments: str, code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "builder", *arguments],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == code, done.stderr
    return done.stdout if not code else done.stderr


def keys_in(cache: str) -> list[str]:
    return [item["key"] for item in json.loads(limpet("cache", "list", f"--cache-repo={cache}", "--format=json"))]


def numbers(keys: list[str]) -> list[int]:
    """Which of KEYS, from 1."""
    return [next(number for number, key in enumerate(KEYS, 1) if key.value == wanted) for wanted in keys]


def test_entries_are_listed_the_oldest_first(cache: str) -> None:
    assert numbers(keys_in(cache)) == [3, 2, 1]
    lines = limpet("cache", "list", f"--cache-repo={cache}").splitlines()
    assert [line.split("  ")[-1] for line in lines[:3]] == ["RUN 3", "RUN 2", "RUN 1"]
    assert lines[3].startswith("3 layers, ")


PRUNED = [
    (["--cache-ttl=60h"], [2, 1]),
    (["--cache-repo-size=2500"], [2, 1]),
    (["--unreferenced"], [2]),
    (["--unreferenced", "--cache-ttl=36h"], []),
    ([KEYS[0].value], [3, 2]),
    ([], [3, 2, 1]),
    (["--cache-ttl=1h", "--dryrun"], [3, 2, 1]),
]


@pytest.mark.parametrize(
    ("cache", "arguments", "left"),
    [*(("directory", *case) for case in PRUNED), *(("registry", *case) for case in PRUNED[:3])],
    indirect=["cache"],
)
def test_pruning_leaves_what_is_to_stay(cache: str, arguments: list[str], left: list[int]) -> None:
    report = json.loads(limpet("cache", "prune", f"--cache-repo={cache}", "--format=json", *arguments))
    assert numbers(keys_in(cache)) == left
    assert report["count"] == len(report["removed"])
    if "--dryrun" not in arguments:
        assert report["count"] == 3 - len(left)


def test_a_pruned_entry_is_not_found(tmp_path: Path, told: Told) -> None:
    cache = DirectoryCache(tmp_path / "cache", told)
    fill(cache)
    limpet("cache", "prune", f"--cache-repo={cache}", KEYS[0].value)
    assert [cache.get(key) is None for key in KEYS] == [True, False, False]


def test_a_cache_that_is_not_there_is_empty(tmp_path: Path, server: RegistryServer, name: str) -> None:
    for cache in (f"oci:{tmp_path / 'nothing'}", f"{server.host}/{name}"):
        assert limpet("cache", "list", f"--cache-repo={cache}") == "0 layers, 0 B\n"
        assert limpet("cache", "prune", f"--cache-repo={cache}").startswith("removed 0, 0 B")


def test_entries_of_kaniko_are_listed(server: RegistryServer, name: str, tmp_path: Path) -> None:
    """Images of one layer without annotations, tagged with 64 digits; other tags are none of ours."""
    from builder.oci import layout
    from tests.images import image

    layout.write(tmp_path / "image", image(layer({"f": b"x"})))
    copy = ["skopeo", "copy", "-q", "--dest-tls-verify=false", f"oci:{tmp_path / 'image'}"]
    for tag in ("f" * 64, "latest"):
        subprocess.run([*copy, f"docker://{server.host}/{name}:{tag}"], check=True)
    cache = f"--cache-repo={server.host}/{name}"
    assert limpet("cache", "list", cache).splitlines()[0].endswith("  layer 0")
    limpet("cache", "prune", cache)
    assert limpet("cache", "list", cache) == "0 layers, 0 B\n"


def test_a_registry_that_deletes_nothing_says_so(shop: Front, name: str, told: Told) -> None:
    cache = fill_repository(f"{shop.host}/{name}", told)
    shop.fault(Answer(405), "DELETE", times=100)
    error = limpet("cache", "prune", f"--cache-repo={cache}", "--cache-ttl=1h", code=1)
    assert "does not delete manifests" in error
    assert "allow it in the registry's settings" in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prune", "--cache-repo=oci:"], "names no directory"),
        (["list", "--cache-repo=r.example/a:tag"], "a cache is a whole repository"),
        (["prune", "--cache-repo=oci:/nowhere", "0" * 64], "the cache has no entry"),
        (["prune", "--cache-repo=oci:/nowhere", "--cache-dir=/x"], "name two things"),
        (["prune", "--cache-repo=oci:/nowhere", "--cache-dir-size=1k"], "--cache-repo-size"),
        (["prune", "--cache-dir=/nowhere", "--unreferenced"], "is for layer caches"),
        (["list", "--cache-dir=/nowhere"], "cannot read the local store /nowhere"),
    ],
)
def test_mistakes_are_errors(arguments: list[str], message: str) -> None:
    assert message in limpet("cache", *arguments, code=1)


def test_a_local_store_is_listed_and_pruned(tmp_path: Path) -> None:
    assert limpet("cache", "list", f"--cache-dir={tmp_path}") == "0 entries, 0 B\n"
    assert limpet("cache", "prune", f"--cache-dir={tmp_path}", "--cache-dir-size=1M").startswith("removed 0, 0 B")


ITEMS = st.lists(
    st.builds(
        Item,
        st.sampled_from("abcdef").map(lambda letter: letter * 64),
        st.just(""),
        st.integers(0, 9),
        st.floats(0, 99),
        st.just(""),
    ),
    unique_by=lambda item: item.name,
)


@settings(deadline=None)
@given(ITEMS, st.floats(0, 99) | st.none(), st.integers(0, 30), st.booleans(), st.sets(st.just("a" * 64)))
def test_laws_of_pruning(
    items: list[Item], older_than: float | None, size: int, unreferenced: bool, keys: set[str]
) -> None:
    record = Item("build-1", "", 5, 99, "", frozenset({"b" * 64, "c" * 64}))
    gone = removable(
        [*items, record], older_than=older_than, size=size, unreferenced=unreferenced, keys=keys, now=100.0
    )
    kept = [item for item in items if item not in gone]
    assert len(gone) == len({item.name for item in gone})
    if size:
        assert sum(item.size for item in kept) <= size
    if older_than is not None:
        assert all(100 - item.created <= older_than for item in kept)
    if unreferenced:
        assert all(item.name in record.keys or record in gone for item in kept)
    assert not any(item.name in keys for item in kept)
    # Nothing goes without a reason: with the size as the only one, the newest stay.
    if older_than is None and not unreferenced and not keys:
        assert all(item.created <= other.created for item in gone for other in kept)
        assert size or gone == []


def test_what_a_killed_build_left_is_removed_later(tmp_path: Path, told: Told) -> None:
    cache = DirectoryCache(tmp_path / "cache", told)
    fill(cache)
    old, new = cache.path / ".partial-old", cache.path / ".partial-new"
    for path in (old, new):
        path.mkdir()
    os.utime(old, (1, 1))
    limpet("cache", "prune", f"--cache-repo={cache}")
    assert (old.exists(), new.exists()) == (False, True)


def test_damaged_entries_can_be_pruned(tmp_path: Path, told: Told) -> None:
    cache = DirectoryCache(tmp_path / "cache", told)
    fill(cache)
    (cache.path / KEYS[0].value / "index.json").write_text("")
    assert len(keys_in(str(cache))) == 3
    limpet("cache", "prune", f"--cache-repo={cache}", KEYS[0].value)
    assert len(keys_in(str(cache))) == 2


def test_indexes_go_with_their_layers(cache: str, tmp_path: Path, told: Told) -> None:
    """But not those of a base, nor those of a layer that another entry has, too."""
    registries = Registries(RegistrySettings(), Credentials({}), {})
    path = cache.removeprefix("oci:")
    opened: DirectoryCache | RepositoryCache = DirectoryCache(Path(path), told)
    if path == cache:
        opened = RepositoryCache(Reference.parse(cache), registries, told)
    base, made, twice = (layer({"file": noise(40_000, number)}) for number in range(3))
    keys = [CacheKey.of(name) for name in ("made", "one", "two")]
    for key, of in zip(keys, (made, twice, twice), strict=True):
        opened.put(key, Entry(of, datetime.now(UTC).isoformat(), "below"), "RUN make")
    indexes = CachedIndexes(tmp_path, told)
    indexes.begin(opened, write=True, meanwhile=False)
    for of in (base, made, twice):
        indexes.put(of, [File("file", FileType.FILE, size=40_000)])
    indexes.finish()
    if isinstance(opened, RepositoryCache):
        opened.close(cancel=False)
    registries.close()
    assert told.warnings == []
    last = limpet("cache", "list", f"--cache-repo={cache}").splitlines()[-1]
    assert last.startswith("6 layers, 3 indexes, ")
    limpet("cache", "prune", f"--cache-repo={cache}", *(key.value for key in keys[:2]))
    assert set(keys_in(cache)) - {key.value for key in KEYS} == {
        keys[2].value,
        *(key_of(of).value for of in (base, twice)),
    }
    limpet("cache", "prune", f"--cache-repo={cache}", keys[2].value)
    assert set(keys_in(cache)) - {key.value for key in KEYS} == {key_of(base).value}


def test_contents_of_mounts_are_in_no_record(tmp_path: Path, told: Told) -> None:
    cache = DirectoryCache(tmp_path / "cache", told)
    fill(cache)
    mount = CacheKey.of("mount")
    cache.put(mount, Entry(layer({"file": b""}), datetime.now(UTC).isoformat(), ""), "RUN --mount=type=cache,id=i")
    limpet("cache", "prune", f"--cache-repo={cache}", "--unreferenced")
    assert set(keys_in(str(cache))) == {USED.value, mount.value}
