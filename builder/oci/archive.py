"""Tarballs as `docker save` writes them and `docker load` and `podman load` read them."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import posixpath
import tarfile
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import zstandard
from isal import igzip, isal_zlib

from builder.errors import BuildError, ImageError
from builder.oci import media_types
from builder.oci.blobs import FileBlob, FileRange, RangeBlob, open_file
from builder.oci.config import ImageConfig
from builder.oci.descriptor import Blob, Descriptor
from builder.oci.image import Image, Layer
from builder.oci.manifest import Manifest, ResolvedImage
from builder.oci.reference import Reference
from builder.oci.verified import BUFFER

_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_LEVEL = 3  # isal's: nearly zlib's density at ten times its speed
_DOCUMENT_LIMIT = 32 << 20  # bytes of manifest.json or a config


def write_archive(path: Path, image: Image, names: Iterable[Reference]) -> None:
    """Write `image` as a tarball whose tags are `names`.

    gzip and plain layers go in as they are; zstd ones, which `docker load` need not know, are unpacked into a file
    beside `path` first. The same image gives the same bytes. Raises BuildError when the file cannot be written, and
    what reading the layers raises.
    """
    with _errors(path), _output(path) as file:
        members = []
        for layer in image.layers:
            name = _member_name(layer)
            if name not in members:
                _add_layer(file, name, layer, path)
            members.append(name)
        config = image.config_bytes()
        config_name = f"{hashlib.sha256(config).hexdigest()}.json"
        _add(file, config_name, len(config), io.BytesIO(config))
        tags = list(map(str, names))  # whole names: podman takes a short one for localhost/...
        manifest = json.dumps([{"Config": config_name, "RepoTags": tags, "Layers": members}]).encode()
        _add(file, "manifest.json", len(manifest), io.BytesIO(manifest))
        file.write(bytes(2 * tarfile.BLOCKSIZE))


@dataclass(frozen=True, slots=True)
class ArchivedImage:
    """What a tarball holds: one image and the names it was saved under."""

    resolved: ResolvedImage
    names: tuple[str, ...]


def read_archive(path: Path, scratch: Path) -> ArchivedImage:
    """The only image of a tarball, in docker format, its layers compressed as registries want them.

    Layers that are plain tars are compressed into `scratch`, a directory that must live as long as the image.
    Raises ImageError when it is no such tarball, holds several images, or a layer is not the one of the config.
    """
    plain = _uncompressed(path, scratch)
    try:
        with open(plain, "rb") as file, tarfile.open(fileobj=file, mode="r:") as archive:
            members = _Members(plain, {posixpath.normpath(member.name): member for member in archive})
    except (tarfile.TarError, OSError) as error:
        raise ImageError(f"{path} is not an image tarball: {error}") from error
    return _read(path, members, scratch)


def _read(path: Path, members: _Members, scratch: Path) -> ArchivedImage:
    try:
        entries = json.loads(members.read("manifest.json"))
        entry = entries[0]
        config_name, layer_names = str(entry["Config"]), [str(name) for name in entry["Layers"] or ()]
        names = tuple(map(str, entry.get("RepoTags") or ()))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ImageError(f"{path} is not an image tarball: its manifest.json is malformed") from error
    if len(entries) != 1:
        raise ImageError(f"{path} holds {len(entries)} images", "save one image in one tarball")
    config_bytes = members.read(config_name)
    try:
        config = ImageConfig.from_json(json.loads(config_bytes))
    except ValueError as error:
        raise ImageError(f"{path}: the config {config_name} is not JSON") from error
    if len(layer_names) != len(config.diff_ids):
        raise ImageError(f"{path} has {len(layer_names)} layers, but its config has {len(config.diff_ids)} diff_ids")
    done: dict[str, Layer] = {}
    for name, diff_id in zip(layer_names, config.diff_ids):
        if diff_id not in done:
            done[diff_id] = _layer(members, name, diff_id, scratch)
    image = Image(config, tuple(done[diff_id] for diff_id in config.diff_ids), "docker")
    descriptor, data = image.manifest(config_bytes)
    layers = tuple(layer.descriptor for layer in image.layers)
    manifest = Manifest(descriptor, data, Descriptor.of(media_types.DOCKER_CONFIG, config_bytes), layers)
    return ArchivedImage(ResolvedImage(image, str(path), manifest, config_bytes), names)


@dataclass(frozen=True, slots=True)
class _Members:
    """The members of an uncompressed tarball, by normalised name."""

    path: Path
    by_name: dict[str, tarfile.TarInfo] = field(repr=False)

    def find(self, name: str) -> tarfile.TarInfo:
        """The file called `name`; docker saves a layer that occurs twice as a link. Raises ImageError."""
        wanted = posixpath.normpath(name)
        for _ in range(len(self.by_name)):
            member = self.by_name.get(wanted)
            if member is None:
                break
            if member.issym():
                wanted = posixpath.normpath(posixpath.join(posixpath.dirname(wanted), member.linkname))
            elif member.islnk():
                wanted = posixpath.normpath(member.linkname)
            elif member.isfile():
                return member
            else:
                break
        hint = "it may be an OCI archive; unpack it and give the directory" if "index.json" in self.by_name else ""
        raise ImageError(f"{self.path} is not an image tarball: it has no file {name}", hint)

    def read(self, name: str) -> bytes:
        member = self.find(name)
        if member.size > _DOCUMENT_LIMIT:
            raise ImageError(f"{self.path}: {name} is {member.size} bytes long, {_DOCUMENT_LIMIT} are allowed")
        with self.open(member) as stream:
            return stream.read()

    def open(self, member: tarfile.TarInfo) -> io.BufferedReader:
        return io.BufferedReader(FileRange(open_file(self.path), member.offset_data, member.size), BUFFER)


def _layer(members: _Members, name: str, diff_id: str, scratch: Path) -> Layer:
    """The layer in member `name`: gzip as it is, anything else as gzip in `scratch`. Checks `diff_id`."""
    member = members.find(name)
    with members.open(member) as stream:
        magic = stream.read(len(_ZSTD))
    try:
        if magic.startswith(_GZIP):
            descriptor, found = _measure(members, member)
            blob: Blob = RangeBlob(members.path, member.offset_data, descriptor)
        else:
            descriptor, found, file = _compress(members, member, scratch, zstd=magic == _ZSTD)
            blob = FileBlob(file, descriptor)
    except (EOFError, zlib.error, zstandard.ZstdError) as error:
        raise ImageError(f"{members.path}: layer {name} is damaged: {error}") from error
    if found != diff_id:
        raise ImageError(f"{members.path}: layer {name} is not the one of the config: {found} instead of {diff_id}")
    return Layer(descriptor, diff_id, blob)


def _measure(members: _Members, member: tarfile.TarInfo) -> tuple[Descriptor, str]:
    """The descriptor and diff_id of a gzip layer."""
    with members.open(member) as stream:
        compressed = hashlib.file_digest(stream, "sha256").hexdigest()
    with members.open(member) as stream, _gunzip(stream) as tar:
        diff_id = hashlib.file_digest(tar, "sha256").hexdigest()
    return Descriptor(media_types.DOCKER_LAYER_GZIP, f"sha256:{compressed}", member.size), f"sha256:{diff_id}"


def _compress(members: _Members, member: tarfile.TarInfo, scratch: Path, *, zstd: bool) -> tuple[Descriptor, str, Path]:
    """A layer as gzip in a file of `scratch`, and its diff_id."""
    diff_id, compressed, size = hashlib.sha256(), hashlib.sha256(), 0
    compressor = isal_zlib.compressobj(_LEVEL, wbits=31)
    with contextlib.ExitStack() as stack:
        stream: Any = stack.enter_context(members.open(member))
        if zstd:
            stream = io.BufferedReader(
                zstandard.ZstdDecompressor().stream_reader(stream, read_across_frames=True), BUFFER
            )
        file = stack.enter_context(tempfile.NamedTemporaryFile(dir=scratch, suffix=".tar.gz", delete=False))
        while block := stream.read(BUFFER):
            diff_id.update(block)
            piece = compressor.compress(block)
            compressed.update(piece)
            size += file.write(piece)
        piece = compressor.flush()
        compressed.update(piece)
        size += file.write(piece)
    descriptor = Descriptor(media_types.DOCKER_LAYER_GZIP, f"sha256:{compressed.hexdigest()}", size)
    return descriptor, f"sha256:{diff_id.hexdigest()}", Path(file.name)


def _uncompressed(path: Path, scratch: Path) -> Path:
    """`path`, or what it is compressed from in `scratch`: members are read by their place."""
    try:
        with open(path, "rb") as file:
            if file.read(len(_GZIP)) != _GZIP:
                return path
        with (
            _gunzip(path) as stream,
            tempfile.NamedTemporaryFile(dir=scratch, suffix=".tar", delete=False) as plain,
        ):
            while block := stream.read(BUFFER):
                plain.write(block)
    except OSError as error:  # gzip's BadGzipFile is one
        raise ImageError(f"cannot read the image tarball {path}: {error.strerror or error}") from error
    except (EOFError, zlib.error) as error:
        raise ImageError(f"the image tarball {path} is damaged: {error}") from error
    return Path(plain.name)


def _gunzip(source: BinaryIO | Path) -> io.BufferedReader:
    stream: io.BufferedReader = igzip.open(source, "rb")  # type: ignore[no-untyped-call]
    return stream


def _member_name(layer: Layer) -> str:
    suffix = "tar.gz" if media_types.layer_compression(layer.descriptor.media_type) == "gzip" else "tar"
    return f"{layer.descriptor.digest.partition(':')[2]}.{suffix}"


def _add_layer(target: BinaryIO, name: str, layer: Layer, path: Path) -> None:
    compression = media_types.layer_compression(layer.descriptor.media_type)
    if compression is None:
        raise ImageError(f"{layer.descriptor.digest} has media type {layer.descriptor.media_type!r}, which is no layer")
    with layer.blob.open() as stream:
        if compression != "zstd":
            _add(target, name, layer.descriptor.size, stream)
            return
        with tempfile.TemporaryFile(dir=path.parent if path.is_file() or not path.exists() else None) as plain:
            zstandard.ZstdDecompressor().copy_stream(stream, plain, write_size=BUFFER)
            size = plain.tell()
            plain.seek(0)
            _add(target, name, size, plain)


def _add(target: BinaryIO, name: str, size: int, stream: BinaryIO) -> None:
    """A member of a tar: header, `size` bytes of `stream`, zeros to a full block."""
    member = tarfile.TarInfo(name)
    member.size = size
    member.mode = 0o644
    target.write(member.tobuf(tarfile.GNU_FORMAT))  # GNU's size field reaches beyond 8 GiB
    while block := stream.read(BUFFER):
        target.write(block)
    target.write(bytes(-size % tarfile.BLOCKSIZE))


@contextlib.contextmanager
def _output(path: Path) -> Iterator[BinaryIO]:
    """A file that becomes `path` when all went well; a pipe or device is written as it is."""
    if path.exists() and not path.is_file():
        with open(path, "wb") as stream:
            yield stream
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name[:32]}.", delete=False) as file:
        try:
            os.fchmod(file.fileno(), 0o644)
            yield file  # type: ignore[misc]  # a wrapper with all of a file's methods
            file.flush()
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise


@contextlib.contextmanager
def _errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BuildError(
            f"cannot write the image tarball {path}: {error.strerror or error}", "check the path and the free space"
        ) from error
