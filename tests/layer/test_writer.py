"""Layers as they are written, read by other programs; what cannot be written."""

from __future__ import annotations

import gc
import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import tracemalloc
from pathlib import Path

import pytest
import zstandard

from builder.errors import BuildError, ImageError, UsageError
from builder.layer.format import LayerFormat
from builder.layer.tar import TarReader
from builder.layer.tar_header import END_OF_ARCHIVE, header
from builder.layer.writer import EMPTY_DIFF_ID, write_layer
from builder.oci.image import Layer
from builder.oci.media_types import Compression
from builder.rootfs.changes import with_hardlinks
from builder.rootfs.directory import DirectoryTree
from builder.rootfs.entry import BytesContent, Change, Entry, FileContent, FileType, Opaque, Whiteout
from tests.layer.conftest import as_root
from tests.rootfs.trees import comparable

COMPRESSIONS: list[Compression] = ["none", "gzip", "zstd"]


def file(path: str, data: bytes = b"", **fields: object) -> Entry:
    return Entry(path, FileType.FILE, size=len(data), content=BytesContent(data), **fields)  # type: ignore[arg-type]


def tar_bytes(layer: Layer) -> bytes:
    with layer.blob.open() as stream:
        data = stream.read()
    if "gzip" in layer.descriptor.media_type:
        return gzip.decompress(data)
    if "zstd" in layer.descriptor.media_type:
        return zstandard.ZstdDecompressor().decompressobj().decompress(data)
    return data


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree with one of everything that needs care."""
    root = tmp_path / "tree"
    (root / ("a" * 90) / ("b" * 60)).mkdir(parents=True)
    (root / ("deep" * 30) / ("deeper" * 30)).mkdir(parents=True)
    (root / ("deep" * 30) / "file").write_bytes(os.urandom(1_000_000))
    (root / os.fsdecode(b"short \xff\xfe")).write_text("not utf-8")
    (root / os.fsdecode(b"long \xff\xfe" * 30)).write_text("not utf-8")
    (root / "ünïcödé").symlink_to("ü" * 100)
    (root / "suid").write_text("x")
    os.chmod(root / "suid", 0o6755)
    os.link(root / "suid", root / "suid again")
    os.mkfifo(root / "fifo")
    os.setxattr(root / "suid", "user.note", b"=\n\0\xff")
    os.utime(root / "suid", ns=(0, 1_500_000_000_987_654_321))
    os.utime(root / "fifo", ns=(0, -1_500_000_000))
    if os.geteuid() == 0:
        os.chown(root / "suid", 4_000_000, 2**32 - 2)
        os.chmod(root / "suid", 0o6755)
        os.mknod(root / "device", 0o60600, os.makedev(8, 1))
        subprocess.run(["setcap", "cap_net_raw=ep", root / "suid"], check=True)
    return root


def changes_of(tree: Path) -> list[Change]:
    return list(with_hardlinks(DirectoryTree(tree).walk()))


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("level", [None, 1, 3, 6])
def test_digests_and_sizes_are_those_of_the_bytes(
    tree: Path, tmp_path: Path, compression: Compression, level: int | None
) -> None:
    layer = write_layer(changes_of(tree), tmp_path, LayerFormat(compression=compression, level=level))
    path = tmp_path / layer.descriptor.digest.removeprefix("sha256:")
    data = path.read_bytes()
    assert "sha256:" + hashlib.sha256(data).hexdigest() == layer.descriptor.digest
    assert len(data) == layer.descriptor.size
    assert "sha256:" + hashlib.sha256(tar_bytes(layer)).hexdigest() == layer.diff_id
    assert write_layer(changes_of(tree), tmp_path, LayerFormat(compression=compression, level=level)) == layer


@pytest.mark.root
@as_root
def test_gnu_tar_reads_it(tree: Path, tmp_path: Path) -> None:
    layer = write_layer(changes_of(tree), tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    command = ["tar", "-xz", "-C", str(out), "--xattrs", "--xattrs-include=*", "--numeric-owner", "-p"]
    subprocess.run(
        command, input=(tmp_path / layer.descriptor.digest[7:]).read_bytes(), check=True, capture_output=True
    )
    assert comparable(DirectoryTree(out)) == comparable(DirectoryTree(tree))


def test_python_reads_it(tree: Path, tmp_path: Path) -> None:
    layer = write_layer(changes_of(tree), tmp_path)
    with tarfile.open(fileobj=io.BytesIO(tar_bytes(layer))) as archive:
        found = {member.name: member for member in archive}
    assert found.keys() == {entry.path for entry in DirectoryTree(tree).walk()}
    assert found["suid again"].islnk()
    assert found["suid again"].linkname == "suid"
    assert found["fifo"].mtime == -1.5


@pytest.mark.root
@as_root
@pytest.mark.skipif(not shutil.which("umoci"), reason="umoci is not installed")
def test_umoci_unpacks_it(tree: Path, tmp_path: Path) -> None:
    """A layer on a base, with whiteouts and an opaque directory."""
    base = [file("gone", b"x"), file("hidden/below", b"x"), file("kept", b"y"), Entry("gone too", FileType.DIRECTORY)]
    (tmp_path / "blobs").mkdir()
    layers = [
        write_layer(base, tmp_path / "blobs"),
        write_layer(
            [
                Whiteout("gone"),
                Whiteout("gone too"),
                Entry("hidden", FileType.DIRECTORY, 0o755),
                Opaque("hidden"),
                file("hidden/above", b"x"),
                *changes_of(tree),
            ],
            tmp_path / "blobs",
        ),
    ]
    _oci_layout(tmp_path / "layout", layers)
    subprocess.run(
        ["umoci", "raw", "unpack", "--image", f"{tmp_path}/layout:latest", tmp_path / "rootfs"],
        check=True,
        capture_output=True,
    )
    found = comparable(DirectoryTree(tmp_path / "rootfs"))
    extra = {path: found.pop(path) for path in ["kept", "hidden", "hidden/above"]}
    assert len(extra) == 3
    assert "gone" not in found
    assert found == comparable(DirectoryTree(tree))


def _oci_layout(directory: Path, layers: list[Layer]) -> None:
    blobs = directory / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def put(data: bytes, media_type: str) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"mediaType": media_type, "digest": "sha256:" + digest, "size": len(data)}

    described = [put(layer.blob.open().read(), layer.descriptor.media_type) for layer in layers]
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
    }
    kind = "application/vnd.oci.image."
    manifest = {
        "schemaVersion": 2,
        "mediaType": kind + "manifest.v1+json",
        "config": put(json.dumps(config).encode(), kind + "config.v1+json"),
        "layers": described,
    }
    named = put(json.dumps(manifest).encode(), kind + "manifest.v1+json")
    named["annotations"] = {"org.opencontainers.image.ref.name": "latest"}
    (directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [named]}))
    (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


def test_pax_records_only_where_they_are_needed() -> None:
    plain = Entry("usr/bin/x", FileType.FILE, 0o755, 10, 10, 10**18, 5)
    assert len(header(plain, 10**18)) == 512
    assert len(header(Entry("n" * 100, FileType.FILE), 0)) == 512
    assert len(header(Entry("p" * 150 + "/" + "n" * 99, FileType.DIRECTORY), 0)) == 512
    assert len(header(Entry("n" * 101, FileType.FILE), 0)) == 1536
    assert len(header(plain, 10**18 + 1)) == 1536


@pytest.mark.parametrize("size", [0o77777777777, 0o77777777777 + 1, 1 << 40])
def test_sizes_around_8_gib(size: int) -> None:
    data = header(Entry("big", FileType.FILE, size=size), 0)
    (entry,) = [next(iter(TarReader(io.BytesIO(data))))]
    assert entry.size == size
    assert tarfile.TarInfo.frombuf(data[-512:], "utf-8", "strict").size in (size, 0)


def test_sparse_files_are_written_whole_and_quickly(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with open(path, "wb") as stream:
        for offset in (1_000_000, 50_000_001, 150_000_000):
            stream.seek(offset)
            stream.write(b"data at %d" % offset)
        stream.truncate(200_000_000)
    entry = Entry("sparse", FileType.FILE, size=200_000_000, content=FileContent(str(path)))
    layer = write_layer([entry, file("after", b"x")], tmp_path)
    data = tar_bytes(layer)
    assert hashlib.sha256(data[512 : 512 + 200_000_000]).digest() == hashlib.sha256(path.read_bytes()).digest()
    assert layer.descriptor.size < 1_000_000


def test_no_changes_make_the_empty_layer_that_everybody_knows(tmp_path: Path) -> None:
    layer = write_layer([], tmp_path)
    assert layer.diff_id == EMPTY_DIFF_ID
    assert layer.descriptor.digest == "sha256:a3ed95caeb02ffe68cdd9fd84406680ae93d633cb16422d00e8a7c22955b46d4"
    assert tar_bytes(layer) == END_OF_ARCHIVE
    for compression in COMPRESSIONS:
        assert write_layer([], tmp_path, LayerFormat(compression=compression)).diff_id == EMPTY_DIFF_ID


def test_the_root_directory_is_not_in_a_layer(tmp_path: Path) -> None:
    assert write_layer([Entry("", FileType.DIRECTORY, 0o700)], tmp_path).diff_id == EMPTY_DIFF_ID


def test_mtimes_are_clamped(tmp_path: Path) -> None:
    entries = [file("old", mtime=5), file("new", mtime=10**18), Entry("d", FileType.DIRECTORY, mtime=10**18 + 1)]
    layer = write_layer(entries, tmp_path, LayerFormat(newest_mtime=10**17))
    assert [entry.mtime for entry in TarReader(io.BytesIO(tar_bytes(layer)))] == [5, 10**17, 10**17]


def test_tee_sees_the_compressed_bytes(tree: Path, tmp_path: Path) -> None:
    seen: list[bytes] = []
    layer = write_layer(changes_of(tree), tmp_path, tee=seen.append)
    assert len(seen) > 1
    assert b"".join(seen) == layer.blob.open().read()


@pytest.mark.parametrize("difference", [-1, 1, 300_000])
@pytest.mark.parametrize("in_memory", [True, False])
def test_a_file_of_another_size_is_an_error(tmp_path: Path, difference: int, in_memory: bool) -> None:
    (tmp_path / "file").write_bytes(b"x" * 1_000_000)
    content = BytesContent(b"x" * 1_000_000) if in_memory else FileContent(str(tmp_path / "file"))
    entry = Entry("etc/x", FileType.FILE, size=1_000_000 + difference, content=content)
    with pytest.raises(ImageError, match="etc/x changed while"):
        write_layer([entry], tmp_path)
    assert os.listdir(tmp_path) == ["file"]


def test_an_error_in_the_tee_or_in_the_changes_ends_it(tree: Path, tmp_path: Path) -> None:
    def fail(data: bytes) -> None:
        raise BuildError("upload failed")

    with pytest.raises(BuildError, match="upload failed"):
        write_layer(changes_of(tree), tmp_path, tee=fail)
    with pytest.raises(ZeroDivisionError):
        write_layer((file(str(1 // number)) for number in (1, 0)), tmp_path)
    assert os.listdir(tmp_path) == ["tree"]


def test_buffers_go_with_the_layer_and_do_not_wait_for_a_garbage_collection(tmp_path: Path) -> None:
    write_layer([file("first", b"x")], tmp_path)  # loads what is loaded once
    gc.disable()
    tracemalloc.start()
    try:
        for number in range(4):
            write_layer([file(str(number), b"x")], tmp_path)
        assert tracemalloc.get_traced_memory()[0] < 1 << 20
    finally:
        tracemalloc.stop()
        gc.enable()


@pytest.mark.root
@as_root
def test_a_full_disk_is_an_error_that_says_so(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", small], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no mounts here: {mounted.stderr.decode().strip()}")
    try:
        with pytest.raises(BuildError, match="no space left"):
            write_layer([file("big", os.urandom(5_000_000))], small)
        assert os.listdir(small) == []
    finally:
        subprocess.run(["umount", small], check=True)


def test_what_a_format_cannot_hold(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="docker format"):
        write_layer([], tmp_path, LayerFormat("docker", "zstd"))
    with pytest.raises(UsageError, match="level 10 does not exist for gzip"):
        write_layer([], tmp_path, LayerFormat(level=10))
    with pytest.raises(ImageError, match="'='"):
        write_layer([file("x", xattrs={"user.a=b": b""})], tmp_path)
    assert os.listdir(tmp_path) == []
