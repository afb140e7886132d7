"""What tests do with registries: images in, images out, and listening meanwhile."""

from __future__ import annotations

from typing import Any

from builder.events import Event, Message
from builder.oci.descriptor import Descriptor
from builder.oci.image import Image
from builder.oci.reference import Reference
from builder.registry.pull import resolve
from builder.registry.push import Uploader
from tests.images import AMD64
from tests.registry.conftest import Connect


class Recorder:
    """A listener that keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def tell(self, event: Event) -> None:
        self.events.append(event)

    @property
    def texts(self) -> list[str]:
        return [event.text for event in self.events if isinstance(event, Message)]


def push(connect: Connect, reference: Reference | str, made: Image, **settings: Any) -> Descriptor:
    """`made` to a reference with a tag."""
    wanted = Reference.parse(str(reference))
    registries = connect(**settings)
    with Uploader(registries, registries.repository(wanted, "push")) as uploader:
        return uploader.finish(made, [wanted.tag])


def pull(connect: Connect, reference: Reference | str, **settings: Any) -> bytes:
    """The first layer of an image."""
    found = resolve(Reference.parse(str(reference)), AMD64, connect(**settings))
    with found.image.layers[0].blob.open() as stream:
        return stream.read()


def is_complete(connect: Connect, reference: Reference | str, made: Image) -> bool:
    """Whether the registry has the image, every byte of it."""
    found = resolve(Reference.parse(str(reference)), AMD64, connect())
    for item in found.image.layers:
        with item.blob.open() as stream:
            stream.read()
    return found.image == made


def first_blob(made: Image) -> str:
    """The digest of the first layer."""
    return made.layers[0].descriptor.digest
