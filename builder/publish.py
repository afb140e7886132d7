"""An image -> its destinations.

Layers go up while the build goes on; the manifest and the tags come last, so a build that fails publishes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Protocol

from builder.errors import RegistryError
from builder.events import Listener, Message, Published
from builder.oci import layout
from builder.oci.descriptor import Descriptor
from builder.oci.image import Image, Layer
from builder.oci.index import index_of
from builder.oci.manifest import ResolvedImage
from builder.oci.reference import Reference
from builder.registry.failures import is_immutable_tag_error
from builder.registry.push import Uploader
from builder.registry.registries import Registries


class Destination(Protocol):
    """A place where the image goes."""

    def prepare(self, layer: Layer) -> None:
        """`layer` will be part of the image; returns at once."""
        ...

    def write(self, images: Sequence[Image]) -> None:
        """Bring the image there, complete: one for each platform, with an index when they are several.

        Raises BuildError.
        """
        ...


class RegistryDestination:
    """One repository with all the tags that the image gets in it. A context manager: an error stops its uploads."""

    def __init__(
        self, references: Sequence[Reference], registries: Registries, listener: Listener, *, ignore_immutable: bool
    ) -> None:
        self.references = tuple(references)
        self._listener = listener
        self._ignore_immutable = ignore_immutable
        self._uploader = Uploader(registries, registries.repository(references[0], "push"), listener)

    def __enter__(self) -> RegistryDestination:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._uploader.close(cancel=error is not None)

    def check_push(self) -> None:
        """Raises RegistryError when the credentials do not allow to push here."""
        self._uploader.repository.check_push()

    def prepare(self, layer: Layer) -> None:
        self._uploader.start(layer)

    def write(self, images: Sequence[Image]) -> None:
        if len(images) == 1:
            self._publish(lambda tag: self._uploader.finish(images[0], [tag]))
            return
        for image in images:
            self._uploader.finish(image, ())  # members of an index have no tags of their own
        index = index_of(images)
        self._publish(lambda tag: self._uploader.finish_index(index, [tag]))

    def copy(self, made: ResolvedImage | layout.StoredManifest) -> None:
        """write() for an image or an index that exists already: the digests stay."""
        if isinstance(made, ResolvedImage):
            self._publish(lambda tag: self._uploader.copy(made, [tag]))
        else:
            self._publish(lambda tag: self._uploader.copy_stored(made, [tag]))

    def _publish(self, send: Callable[[str], Descriptor]) -> None:
        """Tag by tag: one that may not be moved does not keep the others from being set."""
        for reference in self.references:
            self._listener.tell(Message(f"Pushing image to {reference}"))
            try:
                descriptor = send(reference.tag)
            except RegistryError as error:
                if not (self._ignore_immutable and is_immutable_tag_error(error)):
                    raise
                self._listener.tell(Message(f"{reference}: the tag is immutable and exists already", "warning"))
            else:
                self._listener.tell(Published(str(reference), descriptor.digest))


class LayoutDestination:
    """`--oci-layout-path`: an OCI image layout."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def prepare(self, layer: Layer) -> None:
        pass

    def write(self, images: Sequence[Image]) -> None:
        layout.write(self._path, *images)


class ArchiveDestination:
    """`--tar-path`: an archive as `docker save` writes it, of one platform. Without a name it has kaniko's for that."""

    def __init__(self, path: Path, references: Sequence[Reference]) -> None:
        self._path = path
        self._references = tuple(references) or (Reference.parse("unset-repo/unset-image-name"),)

    def prepare(self, layer: Layer) -> None:
        pass

    def write(self, images: Sequence[Image]) -> None:
        from builder.oci.archive import write_archive  # few builds write archives, and tarfile takes long to load

        (image,) = images
        write_archive(self._path, image, self._references)


def registry_destinations(
    references: Sequence[Reference], registries: Registries, listener: Listener, *, ignore_immutable: bool
) -> list[RegistryDestination]:
    """One destination for each repository among `references`, in the order they first appear."""
    by_name: dict[str, list[Reference]] = {}
    for reference in references:
        by_name.setdefault(reference.name, []).append(reference)
    return [
        RegistryDestination(members, registries, listener, ignore_immutable=ignore_immutable)
        for members in by_name.values()
    ]


def check_push(destinations: Sequence[RegistryDestination]) -> None:
    """Ask every repository at once whether pushing is allowed. Raises the first RegistryError."""
    if not destinations:
        return
    with ThreadPoolExecutor(len(destinations), thread_name_prefix="push-check") as pool:
        for future in [pool.submit(destination.check_push) for destination in destinations]:
            future.result()
