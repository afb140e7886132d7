"""Images by name, each asked for once: from the store, registries, and layouts that --build-context names."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

from builder.errors import BuildError
from builder.events import Listener
from builder.oci import layout
from builder.oci.image import Image
from builder.oci.manifest import ResolvedImage
from builder.oci.platform import Platform
from builder.oci.reference import DOCKER_HUB, Reference
from builder.once import Once
from builder.plan import BaseImage, ExternalImage
from builder.registry.pull import resolve
from builder.registry.registries import Registries

if TYPE_CHECKING:
    from builder.store.store import Store


class Images:
    """The base images of a build. Thread-safe."""

    def __init__(self, registries: Registries, listener: Listener, store: Store | None = None) -> None:
        self._registries = registries
        self._store = store
        self._listener = listener
        self._lock = threading.Lock()
        self._asked = Once[ExternalImage, ResolvedImage]()
        self._needed: dict[ExternalImage, None] = {}

    def prefetch(self, images: Iterable[ExternalImage]) -> None:
        """Ask for the manifests and configs of all `images` at once. An error is kept for whoever needs the image."""
        wanted = list(images)
        if len(wanted) < 2:
            return  # a thread would not make it faster
        with ThreadPoolExecutor(min(8, len(wanted)), thread_name_prefix="resolve") as pool:
            for image in wanted:
                pool.submit(self._resolved, image)

    def hint(self, images: Iterable[ExternalImage]) -> None:
        """Ask for what will probably be needed. Errors are kept, and an image that nobody needs is never told of."""
        for image in images:
            with contextlib.suppress(BuildError):
                self._found(image)

    def config(self, reference: str, platform: Platform) -> BaseImage:
        """What a plan needs of an image. Raises BuildError."""
        return BaseImage(self.image(reference, platform).config)

    def image(self, reference: str, platform: Platform) -> Image:
        """The image that `reference` (normalised by the plan) names. Raises BuildError."""
        return self._resolved(ExternalImage(reference, platform)).image

    def forget(self, image: ExternalImage) -> None:
        """Remove all that the store has of `image`: it will be fetched again. Raises BuildError when it cannot be."""
        found = self._resolved(image)
        if self._store is not None:
            self._store.forget(found)
        self._asked.forget(image)

    def resolved(self) -> list[ResolvedImage]:
        """Every image that came from a registry, in the order they were asked for."""
        with self._lock:
            needed = [image for image in self._needed if not image.reference.startswith(layout.SCHEME)]
        return [found for image in needed if (found := self._asked.known(image)) is not None]

    def _resolved(self, image: ExternalImage) -> ResolvedImage:
        with self._lock:
            self._needed.setdefault(image)
        return self._found(image)

    def _found(self, image: ExternalImage) -> ResolvedImage:
        return self._asked.get(image, lambda: self._resolve(image))

    def _resolve(self, image: ExternalImage) -> ResolvedImage:
        if image.reference.startswith(layout.SCHEME):
            return layout.read(layout.Location.parse(image.reference), image.platform)
        reference, store = Reference.parse(image.reference), self._store
        try:
            found = resolve(
                reference, image.platform, self._registries, self._listener, None if store is None else store.images
            )
        except BuildError as error:
            error.hint = "\n".join(filter(None, (error.hint, _perhaps_a_stage(reference))))
            raise
        if store is None:
            return found
        layers = (replace(layer, blob=store.blobs.blob(layer.descriptor, layer.blob)) for layer in found.image.layers)
        return replace(found, image=replace(found.image, layers=tuple(layers)))


def _perhaps_a_stage(reference: Reference) -> str:
    """What to say of a name that was one word: it may have been meant for something else."""
    registry, _, name = reference.repository.partition("/")
    if (reference.registry, registry, reference.tag) != (DOCKER_HUB, "library", "latest"):
        return ""
    return f"no stage and no --build-context is called {name}, so it is taken for an image of Docker Hub"
