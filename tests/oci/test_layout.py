"""OCI image layouts, against skopeo and umoci."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from builder.errors import BuildError, ImageError, UsageError
from builder.oci import layout, media_types
from builder.oci.descriptor import Descriptor, sha256
from builder.oci.layout import Location
from builder.oci.platform import Platform
from tests.images import AMD64, image, layer, noise

ARM64 = Platform("linux", "arm64")
needs_skopeo = pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed")


def skopeo(*arguments: str) -> Any:
    ended = subprocess.run(["skopeo", *arguments], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout) if ended.stdout.startswith("{") else ended.stdout


@needs_skopeo
@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_skopeo_reads_what_is_written(tmp_path: Path, compression: media_types.Compression) -> None:
    made = image(layer({"a": noise(100_000)}, compression), layer({"b": b"2"}))
    descriptor = layout.write(tmp_path / "out", made)
    assert descriptor.digest == made.manifest()[0].digest
    shown = skopeo("inspect", f"oci:{tmp_path}/out")
    assert shown["Digest"] == descriptor.digest
    assert shown["Layers"] == [item.descriptor.digest for item in made.layers]
    skopeo("copy", f"oci:{tmp_path}/out", f"dir:{tmp_path}/copy")  # reads every blob and checks its digest


@needs_skopeo
def test_a_docker_image_in_a_layout(tmp_path: Path) -> None:
    made = image(image_format="docker")
    layout.write(tmp_path, made)
    assert skopeo("inspect", f"oci:{tmp_path}")["Digest"] == made.manifest()[0].digest


@pytest.mark.skipif(shutil.which("umoci") is None, reason="umoci is not installed")
def test_umoci_reads_what_is_written(tmp_path: Path) -> None:
    layout.write(tmp_path / "out", image())
    ended = subprocess.run(["umoci", "ls", "--layout", tmp_path / "out"], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def test_round_trip(tmp_path: Path) -> None:
    made = image(layer({"a": noise(3_000_000)}), layer({"b": b"2"}, "none"))
    layout.write(tmp_path, made)
    found = layout.read(Location.parse(f"oci-layout://{tmp_path}"), AMD64)
    assert found.image == made
    assert (found.digest, found.index_digest) == (made.manifest()[0].digest, "")
    assert found.config == made.config_bytes()
    for mine, theirs in zip(made.layers, found.image.layers):
        with mine.blob.open() as expected, theirs.blob.open() as got:
            assert got.read() == expected.read()


def test_writing_again_replaces_the_image_and_keeps_blobs(tmp_path: Path) -> None:
    first, second = image(label="1"), image(label="2")
    layout.write(tmp_path, first)
    layout.write(tmp_path, second)
    index = json.loads((tmp_path / "index.json").read_text())
    assert [entry["digest"] for entry in index["manifests"]] == [second.manifest()[0].digest]
    assert layout.read(Location(tmp_path, digest=first.manifest()[0].digest), AMD64).image == first
    leftovers = [path for path in tmp_path.rglob("*") if path.name.startswith(".")]
    assert leftovers == []


def test_a_half_written_blob_is_written_again(tmp_path: Path) -> None:
    made = image(layer({"a": noise(5000)}))
    path = layout.blob_path(tmp_path, made.layers[0].descriptor.digest)
    path.parent.mkdir(parents=True)
    for damaged in (b"half", bytes(made.layers[0].descriptor.size)):
        path.write_bytes(damaged)
        layout.write(tmp_path, made)
        with layout.read(Location(tmp_path), AMD64).image.layers[0].blob.open() as stream:
            assert len(stream.read()) == made.layers[0].descriptor.size


def test_several_images_become_an_index(tmp_path: Path) -> None:
    images = {platform: image(platform=platform) for platform in (AMD64, ARM64)}
    top = layout.write(tmp_path, *images.values())
    assert top.media_type == media_types.OCI_INDEX
    for platform, made in images.items():
        found = layout.read(Location(tmp_path), platform)
        assert (found.image, found.index_digest) == (made, top.digest)
    with pytest.raises(ImageError, match=r"there is linux/amd64, linux/arm64"):
        layout.read(Location(tmp_path), Platform("linux", "s390x"))


def test_everything_that_a_layout_holds(tmp_path: Path) -> None:
    images = [image(platform=platform) for platform in (AMD64, ARM64)]
    top = layout.write(tmp_path / "several", *images)
    found = layout.read_all(tmp_path / "several")
    assert (found.descriptor, Descriptor.of(top.media_type, found.data)) == (top, top)
    assert [member.digest for member in found.members] == [item.manifest()[0].digest for item in images]
    layout.write(tmp_path / "one", images[0])
    one = layout.read_all(tmp_path / "one")
    manifest, data = images[0].manifest()
    assert (one.descriptor, one.data, one.members) == (manifest, data, ())
    assert [blob.descriptor.digest for blob in one.blobs] == [
        sha256(images[0].config_bytes()),
        *(item.descriptor.digest for item in images[0].layers),
    ]
    (tmp_path / "several/index.json").write_bytes(found.data)  # names both images, instead of their index
    with pytest.raises(ImageError, match="holds 2 images"):
        layout.read_all(tmp_path / "several")


@needs_skopeo
def test_tags_of_a_layout_that_skopeo_wrote(tmp_path: Path) -> None:
    made = {tag: image(label=tag) for tag in ("one", "two")}
    for tag, item in made.items():
        layout.write(tmp_path / tag, item)
        skopeo("copy", f"oci:{tmp_path}/{tag}", f"oci:{tmp_path}/all:{tag}")
    for tag, item in made.items():
        assert layout.read(Location.parse(f"oci-layout://{tmp_path}/all:{tag}"), AMD64).image == item
        digest = item.manifest()[0].digest
        assert layout.read(Location.parse(f"oci-layout://{tmp_path}/all@{digest}"), AMD64).image == item
    with pytest.raises(ImageError, match="no image has that tag; there is one, two"):
        layout.read(Location(tmp_path / "all", "three"), AMD64)
    with pytest.raises(ImageError, match="the layout has 2 images") as caught:
        layout.read(Location(tmp_path / "all"), AMD64)
    assert "one, two" in caught.value.hint
    with pytest.raises(ImageError, match="no such manifest"):
        layout.read(Location(tmp_path / "all", digest="sha256:" + "0" * 64), AMD64)


def test_damage_is_noticed(tmp_path: Path) -> None:
    made = image(layer({"a": noise(5000)}))
    layout.write(tmp_path, made)
    blob = layout.blob_path(tmp_path, made.layers[0].descriptor.digest)
    data = blob.read_bytes()
    for wrong, words in ((data[:-1], "ends after"), (data + b"x", "longer"), (b"x" + data[1:], "match its digest")):
        blob.write_bytes(wrong)
        stream = layout.read(Location(tmp_path), AMD64).image.layers[0].blob.open()
        with pytest.raises(ImageError, match=words):
            stream.read()
    layout.blob_path(tmp_path, Descriptor.of("", made.config_bytes()).digest).write_bytes(b"{}")
    with pytest.raises(ImageError, match="ends after"):
        layout.read(Location(tmp_path), AMD64)


def test_what_is_no_layout(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="cannot read") as caught:
        layout.read(Location(tmp_path / "nothing"), AMD64)
    assert "not an OCI image layout" in caught.value.hint
    layout.write(tmp_path, image())
    (tmp_path / "oci-layout").write_text('{"imageLayoutVersion": "7.0"}')
    with pytest.raises(ImageError, match="unknown version"):
        layout.read(Location(tmp_path), AMD64)


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BuildError, match=r"cannot write the OCI layout .*/file/out: Not a directory"):
        layout.write(tmp_path / "file/out", image())


def test_a_layer_that_fails_leaves_the_old_image(tmp_path: Path) -> None:
    good, bad = image(label="good"), image(layer({"a": b"1"}))
    layout.write(tmp_path, good)

    class Broken:
        def open(self) -> Any:
            raise ImageError("gone")

    wrong = layer({"a": b"1"})
    bad = image(type(wrong)(wrong.descriptor, wrong.diff_id, Broken()))
    with pytest.raises(ImageError, match="gone"):
        layout.write(tmp_path, bad)
    assert layout.read(Location(tmp_path), AMD64).image == good


def test_locations(tmp_path: Path) -> None:
    digest = "sha256:" + "a" * 64
    assert Location.parse("oci-layout://x/y:tag") == Location(Path("x/y"), "tag")
    assert Location.parse(f"oci-layout:///x@{digest}") == Location(Path("/x"), "", digest)
    assert Location.parse(f"/x:1@{digest}") == Location(Path("/x"), "1", digest)
    (tmp_path / "cache:key").mkdir()
    assert Location.parse(f"{tmp_path}/cache:key") == Location(tmp_path / "cache:key")
    assert str(Location(Path("/x"), "1", digest)) == f"oci-layout:///x:1@{digest}"
    for text in ("oci-layout://", "oci-layout:///x@sha256:1"):
        with pytest.raises(UsageError):
            Location.parse(text)
