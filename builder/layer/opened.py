"""Opening a layer's blob so that whatever is wrong with it is said of that layer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from builder.errors import ImageError
from builder.layer.overlay import NeedsLayersBelow
from builder.oci.image import Layer
from builder.oci.verified import read_to_end


@contextmanager
def opened(layer: Layer) -> Iterator[BinaryIO]:
    """The compressed bytes of `layer`, for one reader; ImageErrors raised inside say which layer of which image.

    A reader may stumble over bytes that are not the layer's before the last one is read and the digest can be
    compared: then the rest is read, so that the wrong digest is what is reported.
    """
    with layer.blob.open() as stream:
        try:
            yield stream
        except NeedsLayersBelow:
            raise
        except ImageError as error:
            read_to_end(stream)
            image = f" of {layer.origin}" if layer.origin else ""
            raise ImageError(
                f"layer {layer.descriptor.digest}{image}: {error.message}",
                error.hint or "the image was published in this state: build it again, or use another one",
            ) from error
