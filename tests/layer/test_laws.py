"""What must hold for every tree and every change of it."""

from __future__ import annotations

import io
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.errors import ImageError
from builder.layer.format import LayerFormat
from builder.layer.overlay import NeedsLayersBelow
from builder.layer.unpack import unpack
from builder.layer.writer import write_layer
from builder.rootfs.changes import Snapshot, changes, overlay_changes
from builder.rootfs.directory import DirectoryTree
from builder.rootfs.entry import Change
from tests.layer.conftest import as_root, index_all, tar_of, unpack_all
from tests.rootfs.trees import comparable, image, mutate

pytestmark = [pytest.mark.root, as_root]
PLAIN = LayerFormat(compression="none")


@contextmanager
def scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@settings(max_examples=200, deadline=None)
@given(image)
def test_the_index_of_an_image_is_what_unpacking_it_gives(layers: list[list[Change]]) -> None:
    tars = [tar_of(layer) for layer in layers]
    with scratch() as work:
        (work / "spool").mkdir()
        try:
            unpack_all(tars, work / "root")
        except ImageError:
            with pytest.raises(ImageError):
                index_all(tars, work / "spool")
            return
        assert comparable(DirectoryTree(work / "root")) == comparable(index_all(tars, work / "spool"))


@settings(max_examples=60, deadline=None)
@given(image)
def test_a_tree_written_as_one_layer_is_the_same_tree(layers: list[list[Change]]) -> None:
    with scratch() as work:
        try:
            unpack_all([tar_of(layer) for layer in layers], work / "root")
        except ImageError:
            return
        empty = work / "empty"
        empty.mkdir()
        nothing = Snapshot.of(empty)
        layer = write_layer(changes(nothing, Snapshot.of(work / "root")), work)
        again = write_layer(changes(nothing, Snapshot.of(work / "root")), work)
        assert again == layer
        with layer.blob.open() as stream:
            unpack(stream, empty, diff_id=layer.diff_id, compression="gzip")
        assert comparable(DirectoryTree(empty)) == comparable(DirectoryTree(work / "root"))


@settings(max_examples=120, deadline=None)
@given(image, st.integers(), st.integers(1, 12))
def test_base_and_changes_make_the_changed_directory(layers: list[list[Change]], seed: int, steps: int) -> None:
    with scratch() as work:
        base = _base(layers, work)
        if base is None:
            return
        unpack_all([base], work / "root")
        before = Snapshot.of(work / "root")
        mutate(str(work / "root"), seed, steps)
        layer = write_layer(changes(before, Snapshot.of(work / "root")), work, PLAIN)
        unpack_all([base, _read(layer.blob.path)], work / "copy")
        assert comparable(DirectoryTree(work / "copy")) == comparable(DirectoryTree(work / "root"))


@settings(max_examples=150, deadline=None)
@given(image, st.integers(), st.integers(1, 12))
def test_base_and_upper_directory_make_the_merged_directory(layers: list[list[Change]], seed: int, steps: int) -> None:
    with scratch() as work:
        base = _base(layers, work)
        if base is None:
            return
        unpack_all([base], work / "lower")
        with overlay(work, [work / "lower"]) as merged:
            mutate(str(merged), seed, steps)
            layer = write_layer(overlay_changes(work / "upper", [work / "lower"]), work, PLAIN)
            expected = comparable(DirectoryTree(merged))
        unpack_all([base, _read(layer.blob.path)], work / "copy")
        assert _without_links(comparable(DirectoryTree(work / "copy"))) == _without_links(expected)


@settings(max_examples=80, deadline=None)
@given(image)
def test_overlay_lower_directories_merge_to_the_tree_of_the_image(layers: list[list[Change]]) -> None:
    tars = [tar_of(layer) for layer in layers]
    with scratch() as work:
        lowers, implied = [], set()
        try:
            for number, data in enumerate(tars):
                lower = work / f"lower{number}"
                lower.mkdir()
                implied |= set(unpack(io.BytesIO(data), lower, form="overlay").implied)
                lowers.append(lower)
        except NeedsLayersBelow:
            return
        except ImageError:
            with pytest.raises(ImageError):
                unpack_all(tars, work / "root")
            return
        if implied:
            return  # as documented, these need the caller's care
        unpack_all(tars, work / "root")
        with overlay(work, lowers[::-1]) as merged:
            assert comparable(DirectoryTree(merged)) == comparable(DirectoryTree(work / "root"))


def test_an_overlay_whiteout_is_a_whiteout_again(tmp_path: Path) -> None:
    """A chain of steps, each in an upper directory on the last one's."""
    lowers = []
    tars = []
    for step in range(4):
        for name in ("upper", "work", "merged"):
            (tmp_path / f"{name}{step}").mkdir()
        with overlay(tmp_path, lowers[::-1] or [_empty(tmp_path)], str(step)) as merged:
            mutate(str(merged), step, 20)
            expected = comparable(DirectoryTree(merged))
        found = list(overlay_changes(tmp_path / f"upper{step}", lowers[::-1]))
        tars.append(_read(write_layer(found, tmp_path, PLAIN).blob.path))
        lowers.append(tmp_path / f"upper{step}")
        unpack_all(tars, tmp_path / f"copy{step}")
        assert _without_links(comparable(DirectoryTree(tmp_path / f"copy{step}"))) == _without_links(expected)


def _base(layers: list[list[Change]], work: Path) -> bytes | None:
    """One layer with the tree of `layers`; None where they make none."""
    try:
        unpack_all([tar_of(layer) for layer in layers], work / "base")
    except ImageError:
        return None
    nothing = Snapshot.of(_empty(work))
    return _read(write_layer(changes(nothing, Snapshot.of(work / "base")), work, PLAIN).blob.path)


def _empty(work: Path) -> Path:
    (work / "nothing").mkdir(exist_ok=True)
    return work / "nothing"


def _read(path: Path) -> bytes:
    return path.read_bytes()


def _without_links(tree: dict[str, tuple[object, ...]]) -> dict[str, tuple[object, ...]]:
    """overlayfs shows the names of a lower hardlinked file with inode numbers of their own kind."""
    return {path: value[:3] for path, value in tree.items()}


@contextmanager
def overlay(work: Path, lowers: list[Path], number: str = "") -> Iterator[Path]:
    for name in ("upper", "work", "merged"):
        (work / f"{name}{number}").mkdir(exist_ok=True)
    options = (
        f"lowerdir={':'.join(map(str, lowers))},upperdir={work}/upper{number},workdir={work}/work{number},"
        "index=off,metacopy=off,redirect_dir=off"
    )
    merged = work / f"merged{number}"
    try:
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, merged], check=True, capture_output=True)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no overlayfs here: {error.stderr.decode().strip()}")
    try:
        yield merged
    finally:
        subprocess.run(["umount", merged], check=True)
