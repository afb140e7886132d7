"""Layers as lower directories of an overlay."""

from __future__ import annotations

from builder.errors import ImageError


class NeedsLayersBelow(ImageError):
    """The layer cannot be an overlayfs lower directory by itself (form "overlay"): it hardlinks a file of a layer
    below, hides the whole root, has a device that overlayfs takes for a whiteout, or writes into a directory without an
    entry in a way that depends on what is below. Unpack the image plainly."""
