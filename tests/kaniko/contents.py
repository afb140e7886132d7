"""What is in an image, read with Python's tarfile: nothing of Limpet's judges Limpet here, and kaniko's images are read
the same way."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zstandard


@dataclass(frozen=True)
class File:
    """A path of an image. `kind` is file, dir, link, char, block or fifo; a hardlink is a file."""

    kind: str
    mode: int
    owner: str  # uid:gid
    content: bytes = b""
    target: str = ""
    mtime: int = 0
    xattrs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Contents:
    """An image of an OCI layout. `layers` are the names in each layer, without `./` and trailing `/`, in order."""

    manifest: Any
    config: Any
    layers: list[list[str]] = field(default_factory=list)
    members: list[list[tarfile.TarInfo]] = field(default_factory=list)
    files: dict[str, File] = field(default_factory=dict)


_KINDS = {
    tarfile.DIRTYPE: "dir",
    tarfile.SYMTYPE: "link",
    tarfile.CHRTYPE: "char",
    tarfile.BLKTYPE: "block",
    tarfile.FIFOTYPE: "fifo",
}


def read(layout: Path) -> Contents:
    """The only image of `layout`."""
    (entry,) = json.loads((layout / "index.json").read_bytes())["manifests"]
    manifest = json.loads(_blob(layout, entry["digest"]))
    config = json.loads(_blob(layout, manifest["config"]["digest"]))
    image = Contents(manifest, config)
    for layer in manifest["layers"]:
        _apply(_decompress(_blob(layout, layer["digest"]), layer["mediaType"]), image)
    return image


def _blob(layout: Path, digest: str) -> bytes:
    return (layout / "blobs" / digest.replace(":", "/")).read_bytes()


def _decompress(data: bytes, media_type: str) -> bytes:
    if media_type.endswith("zstd"):
        return zstandard.ZstdDecompressor().decompressobj().decompress(data)
    return gzip.decompress(data) if media_type.endswith("gzip") else data


def _apply(data: bytes, image: Contents) -> None:
    names: list[str] = []
    members: list[tarfile.TarInfo] = []
    added: dict[str, File] = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for member in archive:
            name = member.name.removeprefix("./").strip("/")
            names.append(name)
            members.append(member)
            directory, _, last = name.rpartition("/")
            below = f"{directory}/" if directory else ""
            if last == ".wh..wh..opq":
                _remove(image.files, below)
            elif last.startswith(".wh."):
                image.files.pop(below + last[4:], None)
                _remove(image.files, f"{below}{last[4:]}/")
            elif name not in ("", "."):
                added[name] = _file(archive, member, {**image.files, **added} if member.islnk() else {})
    for name, file in added.items():
        if file.kind != "dir":
            _remove(image.files, f"{name}/")
        image.files[name] = file
    image.layers.append(names)
    image.members.append(members)


def _remove(files: dict[str, File], below: str) -> None:
    for name in [name for name in files if name.startswith(below)]:
        del files[name]


def _file(archive: tarfile.TarFile, member: tarfile.TarInfo, known: dict[str, File]) -> File:
    if member.islnk():
        return known[member.linkname.removeprefix("./").strip("/")]
    stream = archive.extractfile(member) if member.isfile() else None
    prefix = "SCHILY.xattr."
    return File(
        kind=_KINDS.get(member.type, "file"),
        mode=member.mode & 0o7777,
        owner=f"{member.uid}:{member.gid}",
        content=stream.read() if stream else b"",
        target=member.linkname if member.issym() else "",
        mtime=int(member.mtime),
        xattrs=tuple(sorted(key.removeprefix(prefix) for key in member.pax_headers if key.startswith(prefix))),
    )
