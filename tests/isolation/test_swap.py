"""Two trees change places, and a swap that was cut off anywhere can be undone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.errors import IsolationError
from builder.isolation import swap as swap_module
from builder.isolation.swap import Swap, spine, undo
from builder.rootfs.changes import Snapshot

KEPT = ("proc", "etc/hosts", "etc/resolv.conf", "run/secrets/account", "limpet", ".aside", "proc/sys")


def look(directory: Path) -> dict[str, tuple[object, ...]]:
    """Everything in a directory: mode, owner, mtime and contents."""
    found: dict[str, tuple[object, ...]] = {}
    for parent, directories, files in os.walk(directory):
        for name in (*directories, *files, "."):
            path = Path(parent, name)
            status = path.lstat()
            content = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else b""
            found[str(path.relative_to(directory))] = (status.st_mode, status.st_uid, status.st_mtime_ns, content)
    return found


def fill(top: Path, *paths: str) -> None:
    """Files, and directories (with a slash at the end), with a time long ago."""
    for path in paths:
        place = top / path
        place.parent.mkdir(parents=True, exist_ok=True)
        if path.endswith("/"):
            place.mkdir(exist_ok=True)
        else:
            place.write_text(f"{top.name}:{path}")
    for parent, directories, files in os.walk(top, topdown=False):
        for name in (*directories, *files):
            os.utime(Path(parent, name), (1000, 1000))
    os.utime(top, (1000, 1000))


@pytest.fixture
def container(tmp_path: Path) -> Path:
    """A root directory with everything that is kept in it."""
    top = tmp_path / "top"
    fill(top, "proc/1/", "proc/sys/", "etc/hosts", "etc/resolv.conf", "etc/passwd", "run/secrets/account/token")
    fill(top, "limpet/bin", "bin/sh", "usr/lib/x", "run/lock", "a file")
    (top / ".aside").mkdir()
    (top / "etc").chmod(0o711)
    return top


@pytest.fixture
def tree(container: Path) -> Path:
    """An image's root, where it is unpacked: it has no /run, and things where others are kept."""
    top = container / ".aside/tree"
    fill(top, "etc/hosts", "etc/passwd", "etc/apt/sources", "bin/", "usr/bin/bash", "proc/", "opt/", "var/lib/y")
    (top / "bin").rmdir()
    (top / "bin").symlink_to("usr/bin")
    (top / "etc").chmod(0o750)
    os.link(top / "etc/passwd", top / "usr/passwd")
    (container / ".aside/aside").mkdir()
    return top


def swap_of(container: Path) -> Swap:
    return Swap(str(container), str(container / ".aside/aside"), KEPT)


def without_aside(found: dict[str, tuple[object, ...]]) -> dict[str, tuple[object, ...]]:
    return {path: value for path, value in found.items() if not path.startswith(".aside")}


def test_the_tree_is_shown_and_what_is_kept_stays(container: Path, tree: Path) -> None:
    swap = swap_of(container)
    swap.show(str(tree))
    assert sorted(os.listdir(container)) == sorted(
        [".aside", "bin", "etc", "limpet", "opt", "proc", "run", "usr", "var"]
    )
    assert sorted(os.listdir(container / "etc")) == ["apt", "hosts", "passwd", "resolv.conf"]
    assert (container / "etc/passwd").read_text() == "tree:etc/passwd"
    assert (container / "etc/hosts").read_text() == "top:etc/hosts"
    assert (container / "etc").stat().st_mode & 0o7777 == 0o750
    assert (container / "etc").stat().st_mtime == 1000
    assert os.listdir(container / "run") == ["secrets"]
    assert os.listdir(container / "proc") == ["1", "sys"] or os.listdir(container / "proc") == ["sys", "1"]
    swap.hide()


def test_both_are_as_before_when_nothing_happened(container: Path, tree: Path) -> None:
    before, of_tree = without_aside(look(container)), look(tree)
    snapshot = Snapshot.of(tree)
    swap = swap_of(container)
    for _ in range(2):
        swap.show(str(tree))
        renewed = swap.hide()
        assert without_aside(look(container)) == before
        assert look(tree) == of_tree
        assert os.listdir(container / ".aside/aside") == []
        now = Snapshot.of(tree)
        # Every status that the moves changed is known, that of a file's other name included.
        assert {path: renewed.get(status, status) for path, status in snapshot.statuses.items()} == now.statuses
        snapshot = now


def test_what_happens_meanwhile_is_in_the_tree(container: Path, tree: Path) -> None:
    before = without_aside(look(container))
    snapshot = Snapshot.of(tree)
    swap = swap_of(container)
    swap.show(str(tree))
    (container / "etc/passwd").write_text("more")
    (container / "etc/new").write_text("new")
    (container / "etc/apt/sources").unlink()
    (container / "new").mkdir()
    (container / "run/secrets/mine").write_text("made where only this container has a directory")
    (container / "opt").chmod(0o700)
    (container / "bin").unlink()
    renewed = swap.hide()
    assert without_aside(look(container)) == before
    assert (tree / "etc/passwd").read_text() == "more"
    assert (tree / "usr/passwd").read_text() == "more"
    assert (tree / "run/secrets/mine").exists()
    assert sorted(os.listdir(tree)) == ["etc", "new", "opt", "proc", "run", "usr", "var"]
    now = Snapshot.of(tree).statuses
    renewed_statuses = {path: renewed.get(status, status) for path, status in snapshot.statuses.items()}
    changed = {path for path in now if renewed_statuses.get(path) != now[path]} - {""}
    assert changed == {
        *("etc", "etc/passwd", "usr/passwd", "etc/new", "etc/apt", "new", "opt"),
        *("run", "run/secrets", "run/secrets/mine"),
    }


class Killed(BaseException):
    pass


def cut_off(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Let the swap's renames, directories and removals end with an exception after `after` of them."""
    count = iter(range(after))

    def limited(name: str) -> None:
        real = getattr(os, name)

        def call(*arguments: object, **options: object) -> object:
            if next(count, None) is None:
                raise Killed
            return real(*arguments, **options)

        monkeypatch.setattr(swap_module.os, name, call)

    for name in ("rename", "mkdir", "rmdir", "chmod", "utime", "unlink", "open"):
        limited(name)


@pytest.mark.parametrize("after", range(0, 90, 2))
def test_a_swap_that_was_killed_anywhere_can_be_undone(
    container: Path, tree: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    before, of_tree = without_aside(look(container)), look(tree)
    swap = swap_of(container)
    with monkeypatch.context() as patch:
        cut_off(patch, after)
        # A kill leaves no time for `show` to undo what it did.
        patch.setattr(swap_module, "undo", undo if after > 60 else lambda top, aside: None)
        try:
            swap.show(str(tree))
            patch.setattr(swap_module, "undo", undo)
            swap.hide()
        except Killed:
            pass
    undo(str(container), str(container / ".aside/aside"))
    assert without_aside(look(container)) == before
    assert contents(look(tree)) == contents(of_tree)
    undo(str(container), str(container / ".aside/aside"))
    assert without_aside(look(container)) == before


def contents(found: dict[str, tuple[object, ...]]) -> dict[str, object]:
    """Names and bytes: a tree that was cut off is thrown away, but nothing of it may lie anywhere else."""
    return {path: value[-1] for path, value in found.items()}


def test_an_error_leaves_everything_as_it_was(container: Path, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, of_tree = without_aside(look(container)), look(tree)
    real = os.rename

    def refuse(source: str, target: str) -> None:
        if source.endswith("tree/usr"):
            raise OSError(28, "No space left on device", source)
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(swap_module.os, "rename", refuse)
        with pytest.raises(IsolationError, match=r"cannot be swapped: No space left on device: .*tree/usr"):
            swap_of(container).show(str(tree))
    assert without_aside(look(container)) == before
    assert contents(look(tree)) == contents(of_tree)


@given(st.sets(st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map("/".join)))
@settings(max_examples=50)
def test_the_spine_has_every_directory_above(kept: set[str]) -> None:
    found = spine(kept)
    assert found == sorted(found)
    assert set(found) == {"", *(path[:end] for path in kept for end in range(len(path)) if path[end] == "/")}
