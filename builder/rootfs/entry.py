"""What a root filesystem consists of, and what a layer changes in it.

Paths are relative to the root of the image, without a leading or trailing slash and without `.` or `..`;
the root directory itself is "". Bytes that are not UTF-8 are carried by surrogate escapes (`os.fsdecode`).
"""

from __future__ import annotations

import enum
import io
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import BinaryIO, Protocol

NO_XATTRS: Mapping[str, bytes] = MappingProxyType({})


class FileType(enum.Enum):
    """The kinds of things a layer can hold. A socket is not one of them."""

    FILE = "file"
    DIRECTORY = "dir"
    SYMLINK = "symlink"
    HARDLINK = "hardlink"
    CHARACTER_DEVICE = "char"
    BLOCK_DEVICE = "block"
    FIFO = "fifo"


class Content(Protocol):
    """Where the bytes of a regular file are."""

    def open(self) -> BinaryIO:
        """A new stream from the first byte."""
        ...


@dataclass(frozen=True, slots=True)
class BytesContent:
    """A file's bytes, in memory: for small generated files (heredocs)."""

    data: bytes

    def open(self) -> BinaryIO:
        return io.BytesIO(self.data)


@dataclass(frozen=True, slots=True)
class FileContent:
    """A file's bytes, in a file of this machine that does not change while the layer is written."""

    path: str

    def open(self) -> BinaryIO:
        return open(self.path, "rb", buffering=0)


@dataclass(frozen=True, slots=True)
class Entry:
    """One path of a root filesystem. Owners are numbers as the image sees them, `mtime` is in nanoseconds."""

    path: str
    type: FileType
    mode: int = 0o644  # permission, setuid, setgid and sticky bits: 0..0o7777
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    size: int = 0
    target: str = ""  # SYMLINK: as written; HARDLINK: path of the first name
    device: tuple[int, int] = (0, 0)  # major, minor
    xattrs: Mapping[str, bytes] = field(default_factory=lambda: NO_XATTRS, hash=False)
    content: Content | None = field(default=None, compare=False)  # FILE only
    # FILE read from a tree: the same value at every name of one file with several names, else None.
    link_id: Hashable = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Whiteout:
    """`path` of the layers below is gone (OCI image-spec, layer.md: `.wh.<name>`)."""

    path: str


@dataclass(frozen=True, slots=True)
class Opaque:
    """Everything that the layers below had *inside* directory `path` is gone (`.wh..wh..opq`)."""

    path: str


Change = Entry | Whiteout | Opaque
