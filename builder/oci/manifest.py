"""Manifests as they arrive: what they are, and the images they make (OCI image-spec, manifest.md)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from builder.errors import ImageError
from builder.oci import media_types
from builder.oci.config import ImageConfig
from builder.oci.descriptor import Blob, Descriptor
from builder.oci.image import Image, Layer
from builder.oci.index import Index
from builder.oci.media_types import ImageFormat

_SCHEMA1 = (
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
)
# Docker before 1.10 and some registries called configs by generic names; Docker still takes these for images.
_CONFIGS = (media_types.OCI_CONFIG, media_types.DOCKER_CONFIG, "application/octet-stream", "application/json")


@dataclass(frozen=True, slots=True)
class Manifest:
    """An image manifest as it was published. `data` is its exact bytes."""

    descriptor: Descriptor
    data: bytes = field(repr=False)
    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def format(self) -> ImageFormat:
        return "docker" if self.descriptor.media_type == media_types.DOCKER_MANIFEST else "oci"

    def image(self, config: bytes, blobs: Iterable[Blob], name: str) -> Image:
        """The image of this manifest, its config blob and a blob for each layer.

        Raises ImageError when config and manifest do not belong together.
        """
        try:
            parsed = ImageConfig.from_json(json.loads(config))
        except ValueError as error:
            raise ImageError(f"the config of {name} is not JSON: {error}") from error
        if len(parsed.diff_ids) != len(self.layers):
            raise ImageError(
                f"{name} has {len(self.layers)} layers, but its config has {len(parsed.diff_ids)} diff_ids"
            )
        layers = tuple(
            Layer(descriptor, diff_id, blob, name)
            for descriptor, diff_id, blob in zip(self.layers, parsed.diff_ids, blobs, strict=True)
        )
        return Image(parsed, layers, self.format, self.annotations)


@dataclass(frozen=True, slots=True)
class ResolvedImage:
    """An image with where it came from.

    `manifest` and `config` are what was published, byte for byte: pushing them again gives the same digest.
    `index_digest` is that of the index it was chosen from, "" if there was none.
    """

    image: Image
    reference: str
    manifest: Manifest
    config: bytes = field(repr=False)
    index_digest: str = ""

    @property
    def digest(self) -> str:
        """The manifest's digest."""
        return self.manifest.descriptor.digest


def parse_manifest(data: bytes, content_type: str, name: str) -> Index | Manifest:
    """Tell what `data` is. `content_type` is what the source called it ("" if it did not).

    Raises ImageError for schema 1, for what is not an image, and for documents that are both or neither.
    """
    value = _document(data, f"the manifest of {name}")
    media_type = str(value.get("mediaType") or content_type.partition(";")[0].strip())
    if media_type in _SCHEMA1 or value.get("schemaVersion") == 1:
        raise ImageError(
            f"{name} is a Docker schema 1 image, a format that registries dropped",
            "push it again with any current tool, e.g. skopeo copy",
        )
    _refuse_both(value, f"the manifest of {name}")
    if media_type in media_types.INDEXES or (media_type not in media_types.MANIFESTS and "manifests" in value):
        return _index(value, media_type, name)
    if media_type in media_types.MANIFESTS or "layers" in value:
        return _manifest(value, data, media_type, name)
    raise ImageError(f"{name} is no image: its manifest has media type {media_type!r}")


@dataclass(frozen=True, slots=True)
class Named:
    """What a manifest of any kind names: the blobs of an image or an artifact, the manifests of an index."""

    media_type: str  # as the document has it; it need not have one
    blobs: tuple[Descriptor, ...]
    manifests: tuple[Descriptor, ...]


def named_by(data: bytes, name: str) -> Named:
    """What the manifest `data` names, whatever its config and layers are. Raises ImageError when it is malformed."""
    value = _document(data, name)
    _refuse_both(value, name)
    lists = {key: value.get(key, []) for key in ("layers", "manifests")}
    lists["config"] = [value["config"]] if "config" in value else []
    if ("config" in value) == ("manifests" in value) or not all(isinstance(each, list) for each in lists.values()):
        raise ImageError(f"{name} is no manifest")
    return Named(
        str(value.get("mediaType", "")),
        tuple(map(Descriptor.from_json, lists["config"] + lists["layers"])),
        tuple(map(Descriptor.from_json, lists["manifests"])),
    )


def _document(data: bytes, what: str) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except ValueError as error:
        raise ImageError(f"{what} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ImageError(f"{what} is not a JSON object")
    return value


def _refuse_both(value: Mapping[str, Any], what: str) -> None:
    """CVE-2021-41190: readers disagree on what a document with the members of both kinds is."""
    if "manifests" in value and ("layers" in value or "config" in value):
        raise ImageError(f"{what} claims to be both an index and an image")


def _index(value: Mapping[str, Any], media_type: str, name: str) -> Index:
    entries = value.get("manifests")
    if not isinstance(entries, list):
        raise ImageError(f"the index of {name} has no manifests")
    image_format: ImageFormat = "docker" if media_type == media_types.DOCKER_LIST else "oci"
    return Index(tuple(map(Descriptor.from_json, entries)), image_format, _annotations(value, name))


def _manifest(value: Mapping[str, Any], data: bytes, media_type: str, name: str) -> Manifest:
    layers = value.get("layers")
    if not isinstance(layers, list) or "config" not in value:
        raise ImageError(f"the manifest of {name} has no config or no layers")
    config = Descriptor.from_json(value["config"])
    if config.media_type not in _CONFIGS:
        raise ImageError(f"{name} is no image: its config has media type {config.media_type!r}")
    descriptors = tuple(map(Descriptor.from_json, layers))
    for layer in descriptors:
        if media_types.layer_compression(layer.media_type) is None:
            raise ImageError(f"{name} has a layer of media type {layer.media_type!r}, which Limpet does not know")
    kind = media_type if media_type in media_types.MANIFESTS else media_types.OCI_MANIFEST
    return Manifest(Descriptor.of(kind, data), data, config, descriptors, _annotations(value, name))


def _annotations(value: Mapping[str, Any], name: str) -> Mapping[str, str]:
    annotations = value.get("annotations") or {}
    if not isinstance(annotations, dict):
        raise ImageError(f"the annotations of {name} are not a JSON object")
    return MappingProxyType(annotations)
