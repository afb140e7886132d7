"""How a layer's tar says that something is gone (OCI image-spec, layer.md)."""

from __future__ import annotations

from builder.errors import ImageError
from builder.rootfs.entry import Change, Entry, Opaque, Whiteout
from builder.rootfs.paths import join

PREFIX = ".wh."
OPAQUE_NAME = ".wh..wh..opq"
_AUFS = ".wh..wh."


def change_of(entry: Entry) -> Change | None:
    """What tar entry `entry` means in a layer. None: a note of aufs to itself, which says nothing.

    Raises ImageError for a whiteout of no name.
    """
    parent, _, name = entry.path.rpartition("/")
    if not name.startswith(PREFIX):
        return entry
    if name == OPAQUE_NAME:
        return Opaque(parent)
    if name.startswith(_AUFS):
        return None
    hidden = name[len(PREFIX) :]
    if hidden in ("", ".", ".."):
        raise ImageError(f"malformed whiteout {entry.path!r} in a layer")
    return Whiteout(join(parent, hidden))
