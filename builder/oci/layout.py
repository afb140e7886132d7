"""OCI image layouts: an image in a directory (OCI image-spec, image-layout.md)."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

from builder.errors import BuildError, ImageError, UsageError
from builder.oci import media_types
from builder.oci.blobs import FileBlob, MemoryBlob
from builder.oci.descriptor import Blob, Descriptor, is_digest
from builder.oci.image import Image
from builder.oci.index import Index, index_of
from builder.oci.manifest import Manifest, ResolvedImage, named_by, parse_manifest
from builder.oci.platform import Platform
from builder.oci.verified import BUFFER

SCHEME = "oci-layout://"
_REF_NAME = "org.opencontainers.image.ref.name"
_CONTAINERD_NAME = "io.containerd.image.name"
_DOCUMENT_LIMIT = 32 << 20  # bytes of a manifest or config
_DEEPEST = 4  # indexes in each other; more are somebody's joke


@dataclass(frozen=True, slots=True)
class Location:
    """`DIR[:tag|@digest]`: an image of a layout. Without tag and digest, the only image there is."""

    directory: Path
    tag: str = ""
    digest: str = ""

    @classmethod
    def parse(cls, text: str) -> Location:
        """With or without `oci-layout://`. A directory whose own name has a colon is taken as it is."""
        name = text.removeprefix(SCHEME)
        if not name:
            raise UsageError(f"{text!r} names no directory", "write it as oci-layout://DIRECTORY[:tag|@digest]")
        if os.path.isdir(name):
            return cls(Path(name))
        name, at, digest = name.partition("@")
        if at and not is_digest(digest):
            raise UsageError(f"{text!r}: {digest!r} is not a digest")
        head, colon, tag = name.rpartition(":")
        if not colon or "/" in tag or os.path.isdir(name):
            head, tag = name, ""
        return cls(Path(head), tag, digest)

    def __str__(self) -> str:
        suffix = (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")
        return f"{SCHEME}{self.directory}{suffix}"


@dataclass(frozen=True, slots=True)
class StoredManifest:
    """A manifest of any kind as a layout has it, `data` its exact bytes: an image's, an index's, an attestation's.

    `blobs` are what it names; `members` the manifests that an index lists.
    """

    descriptor: Descriptor
    data: bytes = field(repr=False)
    blobs: tuple[FileBlob, ...] = ()
    members: tuple[StoredManifest, ...] = ()

    @property
    def digest(self) -> str:
        """The manifest's digest."""
        return self.descriptor.digest


def read(location: Location, platform: Platform) -> ResolvedImage:
    """The image at `location` for `platform`; layers stay files.

    Raises ImageError when the directory is no layout, has no such image, or holds something else than it says.
    """
    directory = location.directory
    entry, index_digest = _entry(_top(directory), location, platform), ""
    document = _document(directory, entry, str(location))
    if isinstance(document, Index):
        index_digest = entry.digest
        entry = document.choose(platform, str(location))
        document = _document(directory, entry, str(location))
    return _image(directory, document, str(location), index_digest)


def read_all(directory: Path) -> StoredManifest:
    """The one image, or the one index with all that it lists, that the layout `directory` holds.

    What is listed need not be images: BuildKit lists attestations beside them. Raises ImageError as `read` does, for
    a layout that holds several, and for an index in which the layout has not everything.
    """
    entries = _top(directory).manifests
    if len(entries) != 1:
        raise ImageError(f"{directory} holds {len(entries)} images", "give a layout with one image or one index")
    return _stored(directory, entries[0], _DEEPEST)


def _stored(directory: Path, entry: Descriptor, depth: int) -> StoredManifest:
    """The manifest of `entry` with what it names, through `depth` indexes."""
    name, data = str(blob_path(directory, entry.digest)), _small(directory, entry)
    named = named_by(data, name)
    kind = named.media_type or entry.media_type
    if kind not in (*media_types.MANIFESTS, *media_types.INDEXES):
        raise ImageError(f"{name} is no manifest: its media type is {kind!r}")
    if named.manifests and not depth:
        raise ImageError(f"{name}: more than {_DEEPEST} indexes in each other")
    for blob in named.blobs:
        if not blob_path(directory, blob.digest).is_file():
            raise ImageError(f"{directory} has not all of its image: {blob.digest} is missing")
    return StoredManifest(
        Descriptor(kind, entry.digest, entry.size),
        data,
        tuple(FileBlob(blob_path(directory, blob.digest), blob) for blob in named.blobs),
        tuple(_stored(directory, member, depth - 1) for member in named.manifests),
    )


def _top(directory: Path) -> Index:
    """What index.json names."""
    version = _json(directory / "oci-layout")
    if not isinstance(version, dict) or not str(version.get("imageLayoutVersion", "")).startswith("1."):
        raise ImageError(f"{directory} is an OCI layout of an unknown version")
    index = parse_manifest(_bytes(directory / "index.json"), media_types.OCI_INDEX, f"{directory}/index.json")
    if not isinstance(index, Index):
        raise ImageError(f"{directory}/index.json is not an image index")
    return index


def _image(directory: Path, document: Index | Manifest, name: str, index_digest: str) -> ResolvedImage:
    if not isinstance(document, Manifest):
        raise ImageError(f"{name}: the index {index_digest} names another index")
    config = _small(directory, document.config)
    blobs = [FileBlob(blob_path(directory, layer.digest), layer) for layer in document.layers]
    return ResolvedImage(document.image(config, blobs, name), name, document, config, index_digest)


def write(directory: Path, *images: Image) -> Descriptor:
    """Make `directory` a layout of one image, or of an index of several; the descriptor of what index.json names.

    What was there is replaced at the end, in one step; blobs of earlier images stay. Raises BuildError when
    the directory cannot be written, and what reading the layers raises.
    """
    with _errors(directory):
        (directory / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)
        entries = [_write_image(directory, image) for image in images]
        top = entries[0]
        if len(entries) > 1:
            top, data = index_of(images).encode()
            write_blob(directory, top, MemoryBlob(data))
        _replace(directory / "oci-layout", json.dumps({"imageLayoutVersion": "1.0.0"}).encode())
        _replace(directory / "index.json", Index((top,)).encode()[1])
    return top


def write_blob(directory: Path, descriptor: Descriptor, blob: Blob) -> None:
    """Put a blob into the layout unless it is there already, whole. Raises OSError."""
    path = blob_path(directory, descriptor.digest)
    if _is_whole(path, descriptor):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with blob.open() as stream, _temporary(path) as file:
        copy(stream, file)


def blob_path(directory: Path, digest: str) -> Path:
    """Where a layout keeps the blob of `digest`."""
    algorithm, _, digits = digest.partition(":")
    return directory / "blobs" / algorithm / digits


def copy(source: BinaryIO, target: BinaryIO) -> None:
    """All bytes of `source` to `target`, through one buffer."""
    while piece := source.read(BUFFER):
        target.write(piece)


def _write_image(directory: Path, image: Image) -> Descriptor:
    manifest, data = image.manifest()
    config = image.config_bytes()
    for layer in image.layers:
        write_blob(directory, layer.descriptor, layer.blob)
    write_blob(directory, Descriptor.of(media_types.OCI_CONFIG, config), MemoryBlob(config))
    write_blob(directory, manifest, MemoryBlob(data))
    return replace(manifest, platform=image.config.platform)


def _entry(index: Index, location: Location, platform: Platform) -> Descriptor:
    """The member of index.json that `location` means."""
    if location.digest:
        known = next((entry for entry in index.manifests if entry.digest == location.digest), None)
        path = blob_path(location.directory, location.digest)
        if known is None and not path.exists():
            raise ImageError(f"{location}: there is no such manifest in the layout")
        return known or Descriptor("", location.digest, path.stat().st_size)
    entries = index.manifests
    if location.tag:
        entries = tuple(entry for entry in entries if location.tag in _tags(entry))
        if not entries:
            known_tags = sorted({tag for entry in index.manifests for tag in _tags(entry)})
            raise ImageError(f"{location}: no image has that tag; there is {', '.join(known_tags) or 'no tag at all'}")
    if len(entries) == 1:
        return entries[0]
    if not entries:
        raise ImageError(f"{location}: the layout has no image")
    if any(entry.platform is None for entry in entries):
        names = sorted({tag for entry in entries for tag in _tags(entry)} or {entry.digest for entry in entries})
        raise ImageError(
            f"{location}: the layout has {len(entries)} images",
            f"say which one, by :tag or @digest: {', '.join(names)}",
        )
    return replace(index, manifests=entries).choose(platform, str(location))


def _tags(entry: Descriptor) -> set[str]:
    names = {entry.annotations.get(_REF_NAME, ""), entry.annotations.get(_CONTAINERD_NAME, "")} - {""}
    return {name.rpartition(":")[2] if ":" in name else name for name in names}


def _document(directory: Path, entry: Descriptor, name: str) -> Index | Manifest:
    return parse_manifest(_small(directory, entry), entry.media_type, name)


def _small(directory: Path, descriptor: Descriptor) -> bytes:
    path = blob_path(directory, descriptor.digest)
    if descriptor.size > _DOCUMENT_LIMIT:
        raise ImageError(f"{path} is {descriptor.size} bytes long, {_DOCUMENT_LIMIT} are allowed")
    with FileBlob(path, descriptor).open() as stream:
        return stream.read()


def _json(path: Path) -> Any:
    try:
        return json.loads(_bytes(path))
    except ValueError as error:
        raise ImageError(f"{path} is not JSON: {error}") from error


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ImageError(
            f"cannot read {path}: {error.strerror}", f"{path.parent} is not an OCI image layout; check the path"
        ) from error


def _is_whole(path: Path, descriptor: Descriptor) -> bool:
    """Whether a file has the descriptor's bytes: an earlier run may have been broken off."""
    if not path.is_file() or path.stat().st_size != descriptor.size:
        return False
    with open(path, "rb") as file:
        algorithm, _, digits = descriptor.digest.partition(":")
        return hashlib.file_digest(file, algorithm).hexdigest() == digits


def _replace(path: Path, data: bytes) -> None:
    with _temporary(path) as file:
        file.write(data)


@contextmanager
def _temporary(path: Path) -> Iterator[BinaryIO]:
    """A new file that becomes `path` when all went well."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:12]}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o644)
            yield file
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


@contextmanager
def _errors(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BuildError(
            f"cannot write the OCI layout {directory}: {error.strerror or error}", "check the path and the free space"
        ) from error
