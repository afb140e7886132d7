"""Image tarballs, against podman and skopeo."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from builder.errors import BuildError, ImageError
from builder.oci.archive import read_archive, write_archive
from builder.oci.descriptor import sha256
from builder.oci.reference import Reference
from tests.images import image, layer, noise, tar

needs_skopeo = pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed")
needs_podman = pytest.mark.skipif(
    shutil.which("podman") is None or os.geteuid() != 0, reason="needs podman and uid 0 for a storage of its own"
)


def run(*arguments: str | Path) -> str:
    ended = subprocess.run([*map(str, arguments)], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


class Podman:
    """podman with a storage of its own."""

    def __init__(self, root: Path, runroot: str) -> None:
        self._options = ("--root", root, "--runroot", runroot, "--storage-driver", "vfs")

    def __call__(self, *arguments: str | Path) -> str:
        return run("podman", *self._options, *arguments)


@pytest.fixture
def podman(tmp_path: Path) -> Iterator[Podman]:
    with tempfile.TemporaryDirectory() as runroot:  # podman wants a path of at most 50 characters
        yield Podman(tmp_path / "podman", runroot)


@needs_podman
@pytest.mark.root
def test_podman_loads_every_kind_of_layer(tmp_path: Path, podman: Podman) -> None:
    made = image(layer({"plain": b"p"}, "none"), layer({"gzip": noise(100_000)}, "gzip"), layer({"zstd": b"z"}, "zstd"))
    write_archive(tmp_path / "a.tar", made, [Reference.parse("app:1"), Reference.parse("r.example/team/app:2")])
    loaded = podman("load", "--quiet", "-i", tmp_path / "a.tar")
    assert "docker.io/library/app:1" in loaded
    assert "r.example/team/app:2" in loaded
    shown = json.loads(podman("image", "inspect", "app:1"))[0]
    assert shown["RootFS"]["Layers"] == [item.diff_id for item in made.layers]
    assert "sha256:" + shown["Id"] == sha256(made.config_bytes())


@needs_skopeo
def test_skopeo_reads_what_is_written(tmp_path: Path) -> None:
    shared = layer({"a": b"1"})
    made = image(shared, layer({"b": b"2"}), shared)  # a layer that occurs twice is in the file once
    write_archive(tmp_path / "a.tar", made, [Reference.parse("app")])
    with tarfile.open(tmp_path / "a.tar") as archive:
        names = archive.getnames()
    assert len(names) == len(set(names)) == 4
    run("skopeo", "copy", f"docker-archive:{tmp_path}/a.tar", f"dir:{tmp_path}/copy")
    config = json.loads(run("skopeo", "inspect", "--config", f"docker-archive:{tmp_path}/a.tar"))
    assert config["rootfs"]["diff_ids"] == [item.diff_id for item in made.layers]


def test_the_same_image_gives_the_same_bytes(tmp_path: Path) -> None:
    made = image(layer({"a": b"1"}, "zstd"), layer({"b": b"2"}))
    for name in "ab":
        write_archive(tmp_path / name, made, [Reference.parse("app")])
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_round_trip_keeps_config_and_compressed_layers(tmp_path: Path) -> None:
    made = image(layer({"a": noise(2_000_000)}), layer({"b": b"2"}, "none"), layer({"c": b"3"}, "zstd"))
    write_archive(tmp_path / "a.tar", made, [Reference.parse("app:7")])
    found = read_archive(tmp_path / "a.tar", tmp_path)
    assert found.names == ("docker.io/library/app:7",)
    assert found.resolved.config == made.config_bytes()
    assert found.resolved.image.config == made.config
    assert found.resolved.image.layers[0].descriptor.digest == made.layers[0].descriptor.digest
    for item in found.resolved.image.layers:
        with item.blob.open() as stream:
            assert sha256(gzip.decompress(stream.read())) == item.diff_id


def test_a_compressed_tarball(tmp_path: Path) -> None:
    made = image(layer({"a": b"1"}))
    write_archive(tmp_path / "a.tar", made, [])
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress((tmp_path / "a.tar").read_bytes()))
    assert read_archive(tmp_path / "a.tar.gz", tmp_path).resolved.image.config == made.config


@needs_podman
@pytest.mark.root
@pytest.mark.parametrize("form", ["docker-archive", "oci-archive"])
def test_what_podman_saves(tmp_path: Path, podman: Podman, form: str) -> None:
    made = image(layer({"a": b"1"}), layer({"b": noise(10_000)}))
    write_archive(tmp_path / "in.tar", made, [Reference.parse("app:1")])
    podman("load", "--quiet", "-i", tmp_path / "in.tar")
    podman("save", "--quiet", "--format", form, "-o", tmp_path / "out.tar", "app:1")
    if form == "oci-archive":
        with pytest.raises(ImageError, match=r"no file manifest\.json") as caught:
            read_archive(tmp_path / "out.tar", tmp_path)
        assert "unpack it and give the directory" in caught.value.hint
        return
    found = read_archive(tmp_path / "out.tar", tmp_path)
    assert found.resolved.image.config.diff_ids == made.config.diff_ids
    assert found.names == ("docker.io/library/app:1",)


def make(path: Path, entries: Any, files: dict[str, bytes], links: dict[str, str] | None = None) -> Path:
    """A tarball by hand."""
    with tarfile.open(path, "w") as archive:
        for name, target in (links or {}).items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            archive.addfile(member)
        for name, data in {**files, "manifest.json": json.dumps(entries).encode()}.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def test_layers_that_are_links(tmp_path: Path) -> None:
    """`docker save` wrote a layer that occurs twice as a link to the first one."""
    data = tar({"a": b"1"})
    made = image(layer({"a": b"1"}, "none"), layer({"a": b"1"}, "none"))
    entries = [{"Config": "c.json", "RepoTags": None, "Layers": ["one/layer.tar", "two/layer.tar"]}]
    files = {"c.json": made.config_bytes(), "one/layer.tar": data}
    path = make(tmp_path / "a.tar", entries, files, {"two/layer.tar": "../one/layer.tar"})
    assert read_archive(path, tmp_path).resolved.image.config == made.config


def test_bad_tarballs(tmp_path: Path) -> None:
    made = image(layer({"a": b"1"}, "none"))
    config, data = made.config_bytes(), tar({"a": b"1"})
    good = {"Config": "c", "RepoTags": [], "Layers": ["l"]}
    cases: list[tuple[Any, dict[str, bytes], dict[str, str], str]] = [
        ([good, good], {"c": config, "l": data}, {}, "holds 2 images"),
        ([good], {"c": config, "l": tar({"a": b"2"})}, {}, "not the one of the config"),
        ([good], {"c": config, "l": b"\x1f\x8bgarbage"}, {}, "damaged"),
        ([good], {"c": config, "l": b"\x28\xb5\x2f\xfdgarbage"}, {}, "damaged"),
        ([good], {"c": config}, {}, "no file l"),
        ([good], {"c": config}, {"l": "l"}, "no file l"),
        ([good], {"c": b"{", "l": data}, {}, "not JSON"),
        ([{**good, "Layers": []}], {"c": config}, {}, "0 layers"),
        ({}, {}, {}, "manifest.json is malformed"),
        ([], {}, {}, "manifest.json is malformed"),
    ]
    for entries, files, links, words in cases:
        with pytest.raises(ImageError, match=words):
            read_archive(make(tmp_path / "a.tar", entries, files, links), tmp_path)
    (tmp_path / "b.tar").write_bytes(b"not a tar" * 100)
    with pytest.raises(ImageError, match="is not an image tarball"):
        read_archive(tmp_path / "b.tar", tmp_path)
    (tmp_path / "b.tar").write_bytes(gzip.compress(b"x" * 10_000)[:-9])
    with pytest.raises(ImageError, match="damaged"):
        read_archive(tmp_path / "b.tar", tmp_path)
    with pytest.raises(ImageError, match="No such file"):
        read_archive(tmp_path / "nothing.tar", tmp_path)


def test_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="cannot write the image tarball /dev/full: No space left") as caught:
        write_archive(Path("/dev/full"), image(), [])
    assert "free space" in caught.value.hint


def test_a_layer_that_fails_leaves_nothing(tmp_path: Path) -> None:
    class Broken:
        def open(self) -> Any:
            raise ImageError("gone")

    good = layer({"a": b"1"})
    with pytest.raises(ImageError, match="gone"):
        write_archive(tmp_path / "a.tar", image(type(good)(good.descriptor, good.diff_id, Broken())), [])
    assert list(tmp_path.iterdir()) == []
