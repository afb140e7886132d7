"""Entries: whole or not there, for every process, whatever happened to the one that made them."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from builder.errors import BuildError
from builder.events import Event, Message
from builder.store.entries import PARTIAL, Entries, Entry, Making
from builder.store.prune import entries_of, prune, remove_leftovers


class Heard:
    def __init__(self) -> None:
        self.texts: list[str] = []

    def tell(self, event: Event) -> None:
        assert isinstance(event, Message)
        self.texts.append(event.text)


def make(entries: Entries, name: str, size: int = 10) -> Entry:
    making = entries.make("kind", name, wait=True)
    assert isinstance(making, Making)
    (making.path / "data").write_bytes(bytes(size))
    entry = making.finish(size, note=name)
    assert entry is not None
    return entry


@pytest.fixture
def heard() -> Heard:
    return Heard()


def test_an_entry_for_others(tmp_path: Path, heard: Heard) -> None:
    one, two = Entries(tmp_path, heard), Entries(tmp_path, heard)
    assert one.open("kind", "name") is None
    entry = make(one, "name")
    assert two.open("kind", "name") == entry
    assert entry.value["note"] == "name"
    assert two.make("kind", "name", wait=False) == entry
    assert os.listdir(tmp_path / PARTIAL) == []
    assert heard.texts == []


def test_who_waits_gets_what_the_other_made(tmp_path: Path, heard: Heard) -> None:
    one, two = Entries(tmp_path, heard), Entries(tmp_path, heard)
    making = one.make("kind", "name", wait=True)
    assert isinstance(making, Making)
    assert two.make("kind", "name", wait=False) is None
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(two.make("kind", "name", wait=True)))
    thread.start()
    entry = making.finish(1)
    thread.join()
    assert found == [entry]


def test_waiting_can_be_stopped(tmp_path: Path, heard: Heard) -> None:
    one, two = Entries(tmp_path, heard), Entries(tmp_path, heard)
    assert isinstance(one.make("kind", "name", wait=True), Making)
    two.stop()
    with pytest.raises(BuildError, match="stopped"):
        two.make("kind", "name", wait=True)


def test_what_was_abandoned_is_made_by_the_next(tmp_path: Path, heard: Heard) -> None:
    one = Entries(tmp_path, heard)
    making = one.make("kind", "name", wait=True)
    assert isinstance(making, Making)
    (making.path / "data").touch()
    making.abandon()
    making.abandon()
    assert os.listdir(tmp_path / PARTIAL) == []
    make(one, "name")


def test_the_dead_leave_nothing(tmp_path: Path, heard: Heard) -> None:
    entries = Entries(tmp_path, heard)
    make(entries, "living")
    alive = entries.make("kind", "half", wait=True)
    assert isinstance(alive, Making)
    child = os.fork()
    if child == 0:
        dying = Entries(tmp_path, heard)
        dying.make("kind", "dead", wait=True)
        (tmp_path / PARTIAL / "removed.1").mkdir()
        (tmp_path / PARTIAL / "removed.1/data").touch()
        os._exit(0)
    os.waitpid(child, 0)
    assert {"kind.dead", "kind.dead.lock", "removed.1"} <= set(os.listdir(tmp_path / PARTIAL))
    remove_leftovers(tmp_path)
    assert sorted(os.listdir(tmp_path / PARTIAL)) == ["kind.half", "kind.half.lock"]
    assert alive.finish(1) is not None
    make(entries, "dead")


def test_pruning_by_size_begins_with_what_was_unused_longest(tmp_path: Path, heard: Heard) -> None:
    entries = Entries(tmp_path, heard)
    for number, name in enumerate(("a", "b", "c", "d")):
        entry = make(entries, name)
        os.utime(entry.path / "lock", (number, number))
    entries.close()
    user = Entries(tmp_path, heard)
    assert user.open("kind", "b") is not None  # from now on it was used last
    os.utime(tmp_path / "kind/b/lock", (0, 0))  # and even if not, it stays as long as it is used
    pruned = prune(tmp_path, size=25)
    assert (pruned.removed, pruned.freed, pruned.left) == (2, 20, 20)
    assert [entry.name for entry in entries_of(tmp_path)] == ["b", "d"]
    user.close()
    assert prune(tmp_path, unused_since=1).removed == 1
    assert [entry.name for entry in entries_of(tmp_path)] == ["d"]
    assert os.listdir(tmp_path / PARTIAL) == []


def test_using_an_entry_makes_it_the_last_to_go(tmp_path: Path, heard: Heard) -> None:
    entries = Entries(tmp_path, heard)
    for name in ("old", "older"):
        os.utime(make(entries, name).path / "lock", (1, 1))
    entries.close()
    user = Entries(tmp_path, heard)
    user.open("kind", "older")
    user.close()
    assert [entry.name for entry in entries_of(tmp_path)] == ["old", "older"]


def test_a_damaged_entry_is_replaced_and_its_users_keep_it(tmp_path: Path, heard: Heard) -> None:
    one, two = Entries(tmp_path, heard), Entries(tmp_path, heard)
    make(one, "name")
    entry = two.open("kind", "name")
    assert entry is not None
    user = os.open(entry.path / "data", os.O_RDONLY)
    two.remove(entry, "no good")
    assert heard.texts == ["the store's kind/name is damaged and not used: no good"]
    assert two.open("kind", "name") is None
    make(two, "name", size=20)
    assert len(os.read(user, 100)) == 10
    os.close(user)
    # A second complaint about the one that is gone does not touch the new one.
    two.remove(entry, "no good")
    assert two.open("kind", "name") is not None
    assert len(os.listdir(tmp_path / PARTIAL)) == 1  # which `one` still uses
    one.close()
    remove_leftovers(tmp_path)
    assert os.listdir(tmp_path / PARTIAL) == []


def test_damaged_entries_are_the_first_to_go(tmp_path: Path, heard: Heard) -> None:
    entries = Entries(tmp_path, heard)
    for name in ("good", "no lock", "no entry.json"):
        os.utime(make(entries, name).path / "lock", (1, 1))
    entries.close()
    (tmp_path / "kind/no lock/lock").unlink()
    (tmp_path / "kind/no entry.json/entry.json").unlink()
    assert prune(tmp_path, unused_since=1).removed == 2
    assert os.listdir(tmp_path / "kind") == ["good"]
    assert os.listdir(tmp_path / PARTIAL) == []


@pytest.mark.parametrize("text", ["", "{", "[]", '{"kind": "kind", "name": "other", "size": 1}'])
def test_an_entry_that_does_not_say_what_it_is(tmp_path: Path, heard: Heard, text: str) -> None:
    one = Entries(tmp_path, heard)
    (make(one, "name").path / "entry.json").write_text(text)
    one.close()
    assert one.open("kind", "name") is None
    assert "damaged" in heard.texts[0]
    assert entries_of(tmp_path) == []
    make(one, "name")


def test_what_cannot_be_written_is_told_once(tmp_path: Path, heard: Heard) -> None:
    entries = Entries(tmp_path, heard)
    (tmp_path / PARTIAL).touch()
    assert entries.make("kind", "name", wait=True) is None
    assert not entries.writable
    assert entries.make("kind", "other", wait=True) is None
    assert [text for text in heard.texts if "cannot be written (" in text] == heard.texts
    assert len(heard.texts) == 1
