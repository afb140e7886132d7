"""A layer -> a directory, with nothing lost and nothing outside the directory touched."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Literal

from builder.errors import BuildError, ImageError, IsolationError
from builder.layer.index_json import USER_FILE_LIMIT
from builder.layer.overlay import NeedsLayersBelow
from builder.layer.pipeline import TarStream
from builder.layer.tar import TarReader
from builder.layer.target import MissingLinkTarget, NotApplied, SetOwner, Target
from builder.layer.whiteouts import change_of
from builder.oci.media_types import Compression
from builder.rootfs.entry import BytesContent, Change, Entry, FileType, Opaque, Whiteout
from builder.rootfs.users import USER_FILES

Form = Literal["plain", "overlay"]


@dataclass(frozen=True, slots=True)
class Unpacked:
    """`implied` are directories (real paths) that the layer writes into but has no entry for. With form "overlay"
    they are 0755 0:0, and whoever mounts the layer must give them the metadata that they have below."""

    diff_id: str
    implied: tuple[str, ...] = ()


def unpack(
    stream: BinaryIO,
    into: Path,
    *,
    compression: Compression | None = None,
    diff_id: str | None = None,
    form: Form = "plain",
    overlay_xattr: Literal["trusted", "user"] = "trusted",
    set_owner: SetOwner | None = None,
    not_applied: NotApplied | None = None,
    progress: Callable[[int], None] | None = None,
    seen: list[Change] | None = None,
) -> Unpacked:
    """Unpack one layer into the existing directory `into`; `stream` is read to its end.

    Form "plain" lays the layer on what `into` has: several layers in order make an image's tree. Form "overlay"
    makes a new directory a lower directory of overlayfs: whiteouts are devices 0:0 and opaque directories are
    marked with `overlay_xattr`.overlay.opaque.

    Paths are clamped inside `into` and symlinks above an entry are followed inside it, as umoci does. Whiteouts and
    opaque markers hide what layers below brought, never what the layer itself brings, and leave their directory's
    mtime alone. `set_owner` is called instead of chown, for every entry; `not_applied` when the machine does not
    allow a device, an owner or an extended attribute (without it that is a BuildError).

    After an error `into` holds part of the layer: unpack into a temporary name and rename it when this returns.
    Raises ImageError when the stream is damaged or its tar does not have `diff_id`, and BuildError when `into`
    cannot be written. `progress` is told how many bytes of tar were read so far. `seen` gets the layer's changes, as
    `builder.layer.index.read_index` has them; with contents only the files that users are looked up in.
    """
    with TarStream(stream, compression, progress) as tar, Target(into, set_owner, not_applied) as target:
        layer: _Plain | _Overlay = _Plain(target) if form == "plain" else _Overlay(target, overlay_xattr)
        reader = TarReader(tar)
        entry = None
        try:
            for entry in reader:
                change = change_of(entry)
                data = reader.data()
                if seen is not None and change is not None:
                    if isinstance(change, Entry) and _names_users(change):
                        content = _in_memory(data, change.size)
                        change, data = replace(change, content=content), iter([(0, memoryview(content.data))])
                    seen.append(change)
                if isinstance(change, Entry):
                    layer.put(change, data)
                elif isinstance(change, Whiteout):
                    layer.whiteout(change.path)
                elif change is not None:
                    layer.opaque(change)
            layer.finish()
        except OSError as error:
            raise _translate(error, entry, into) from error
        return Unpacked(tar.finish(diff_id), target.implied)


class _Plain:
    """Whiteouts are carried out at once."""

    def __init__(self, target: Target) -> None:
        self._target = target

    def put(self, entry: Entry, data: Iterable[tuple[int, memoryview]]) -> None:
        self._target.put(entry, data)

    def whiteout(self, path: str) -> None:
        real = self._target.real(path)
        if real is not None:
            self._target.hide(real)

    def opaque(self, change: Opaque) -> None:
        self._target.hide_inside(self._target.enter(change.path))

    def finish(self) -> None:
        self._target.finish()


class _Overlay:
    """Whiteouts are made at the end, when it is known what the layer itself has in their place."""

    def __init__(self, target: Target, overlay_xattr: str) -> None:
        self._target = target
        self._xattr = f"{overlay_xattr}.overlay.opaque"
        self._whiteouts: list[str] = []
        self._opaque: set[str] = set()

    def put(self, entry: Entry, data: Iterable[tuple[int, memoryview]]) -> None:
        if entry.type is FileType.CHARACTER_DEVICE and entry.device == (0, 0):
            raise NeedsLayersBelow(f"{entry.path}: device 0:0, which overlayfs takes for a whiteout")
        try:
            self._target.put(entry, data)
        except ImageError as error:
            # Where directories are made that may be something else below, what is wrong here may be right there.
            uncertain = self._target.implied or self._target.took_implied_away
            if not (uncertain or isinstance(error, MissingLinkTarget)):
                raise
            raise NeedsLayersBelow(error.message) from error

    def whiteout(self, path: str) -> None:
        parent, slash, name = path.rpartition("/")
        there = self._target.real(parent)
        if (there is None or not self._target.is_directory(there)) and self._is_below_a_file(parent):
            return
        self._whiteouts.append(self._target.enter(parent) + slash + name)

    def opaque(self, change: Opaque) -> None:
        real = self._target.enter(change.path)
        if not real:
            raise NeedsLayersBelow("a layer hides everything below it")
        self._opaque.add(real)

    def finish(self) -> None:
        if self._target.took_implied_away:
            raise NeedsLayersBelow("a layer writes into a directory that it does not have, and then replaces it")
        for real in self._opaque.intersection(self._target.implied):
            raise NeedsLayersBelow(f"a layer hides what is in {real}, a directory that it has no entry for")
        for real in dict.fromkeys((*self._whiteouts, *self._target.not_made)):
            if self._target.is_made_for_nothing(real):
                raise NeedsLayersBelow(f"a layer removes {real} and what is inside it")
            if not self._target.wrote(real):
                self._make_whiteout(real)
            elif self._target.is_directory(real):
                self._opaque.add(real)
        self._target.finish(self._opaque | self._target.covering, self._xattr)

    def _is_below_a_file(self, path: str) -> bool:
        """Whether the layer itself has something that is no directory at `path` or above it: nothing is below that."""
        names = path.split("/")
        above = ("/".join(names[:count]) for count in range(1, len(names) + 1))
        return any(self._target.wrote(part) and not self._target.is_directory(part) for part in above)

    def _make_whiteout(self, real: str) -> None:
        try:
            unmoved = self._target.real(real) == real
        except ImageError:  # it leads nowhere any more: through a symlink to itself, say
            unmoved = False
        # Its directory may have been replaced since, by something that hides what is below as well.
        if not unmoved:
            return
        try:
            self._target.whiteout(real)
        except PermissionError as error:
            raise IsolationError(
                f"cannot make overlayfs whiteout {real}: {error.strerror}", "this needs Linux 5.8 or root"
            ) from error


def _names_users(entry: Entry) -> bool:
    return entry.type is FileType.FILE and entry.path in USER_FILES and 0 < entry.size <= USER_FILE_LIMIT


def _in_memory(data: Iterable[tuple[int, memoryview]], size: int) -> BytesContent:
    whole = bytearray(size)
    for offset, piece in data:
        whole[offset : offset + len(piece)] = piece
    return BytesContent(bytes(whole))


def _translate(error: OSError, entry: Entry | None, into: Path) -> BuildError:
    where = entry.path if entry else ""
    if error.errno in (errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL):
        return ImageError(f"cannot unpack {where}: {error.strerror}")
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return BuildError(f"no space left under {into} while unpacking {where}", "give --work-dir a larger volume")
    return BuildError(f"cannot unpack {where} into {into}: {error.strerror or os.strerror(error.errno or 0)}")
