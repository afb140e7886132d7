"""Anything that a registry keeps as a manifest with layers: images, and artifacts of any other kind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from builder.errors import BuildError, ImageError
from builder.events import Listener, Silent
from builder.oci import media_types
from builder.oci.descriptor import Descriptor
from builder.oci.index import Index
from builder.oci.manifest import parse_manifest
from builder.oci.platform import Platform
from builder.oci.reference import Reference
from builder.oci.verified import BUFFER
from builder.registry.download import RemoteBlob
from builder.registry.registries import Registries
from builder.registry.repository import Repository

_TITLE = "org.opencontainers.image.title"


@dataclass(frozen=True, slots=True)
class ArtifactLayer:
    """One blob of an artifact; `title` is its annotation org.opencontainers.image.title, or ""."""

    blob: RemoteBlob

    @property
    def digest(self) -> str:
        return self.blob.descriptor.digest

    @property
    def size(self) -> int:
        return self.blob.descriptor.size

    @property
    def media_type(self) -> str:
        return self.blob.descriptor.media_type

    @property
    def title(self) -> str:
        return self.blob.descriptor.annotations.get(_TITLE, "")

    def chunks(self) -> Iterator[bytes]:
        """The blob's bytes as stored. Raises RegistryError, and ImageError at the end for other bytes."""
        with self.blob.open() as stream:
            while piece := stream.read(BUFFER):
                yield piece


@dataclass(frozen=True, slots=True)
class Artifact:
    """`digest` is the manifest's; `layers` are in the manifest's order."""

    digest: str
    layers: tuple[ArtifactLayer, ...]


def pull_artifact(reference: Reference, registries: Registries, listener: Listener | None = None) -> Artifact:
    """What `reference` names, from the first mirror that has it, else from its registry.

    Of an index, the entry for this machine's platform, or the only one there is. Raises RegistryError when it cannot
    be had, and ImageError when it is no manifest with layers.
    """
    candidates = registries.settings.mirrors.candidates(reference)
    for number, candidate in enumerate(candidates):
        repository = registries.repository(candidate.reference, "pull", candidate.scheme)
        try:
            return _pull(reference, repository, listener or Silent())
        except BuildError:
            if number == len(candidates) - 1:
                raise
    raise AssertionError("unreachable")


def _pull(reference: Reference, repository: Repository, listener: Listener) -> Artifact:
    described, data = repository.get_manifest(reference.identifier)
    if described.media_type.partition(";")[0].strip() in media_types.INDEXES:
        index = parse_manifest(data, described.media_type, str(reference))
        if isinstance(index, Index):
            described, data = repository.get_manifest(index.choose(Platform.host(), str(reference)).digest)
    layers = tuple(
        ArtifactLayer(RemoteBlob(repository, layer, listener=listener)) for layer in _layers(data, reference)
    )
    return Artifact(described.digest, layers)


def _layers(data: bytes, reference: Reference) -> tuple[Descriptor, ...]:
    """Of a manifest whose config may be of any kind."""
    try:
        value = json.loads(data)
        if "manifests" in value:  # see CVE-2021-41190
            raise ValueError("it claims to be an index")
        return tuple(map(Descriptor.from_json, value["layers"]))
    except (ValueError, KeyError, TypeError) as error:
        raise ImageError(f"{reference} is no manifest with layers: {error}") from error
