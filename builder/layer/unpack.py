"""A layer -> a directory, with nothing lost and nothing outside the directory touched."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from builder.errors import ImageError
from builder.oci.media_types import Compression
from builder.rootfs.entry import Entry

Form = Literal["plain", "overlay"]
# (descriptor of the parent directory, name in it, entry with its real path): called instead of chown
SetOwner = Callable[[int, str, Entry], None]
# (entry, what could not be made: "device", "owner" or "xattr NAME")
NotApplied = Callable[[Entry, str], None]


class CrossLayerLink(ImageError):
    """A hardlink to a file of a lower layer: cannot be unpacked alone (form "overlay"); unpack the image plainly."""


@dataclass(frozen=True, slots=True)
class Unpacked:
    """`implied` directories had no entry of their own: with form "overlay" their metadata must come from below."""

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
) -> Unpacked:
    """Unpack one layer into the existing directory `into`.

    After an error `into` holds part of the layer: unpack into a temporary name and rename it when this returns.
    Raises ImageError when the stream is damaged or its tar does not have `diff_id`.
    """
    raise NotImplementedError
