"""Images and layers as immutable values; a change makes a new one.

Digests and sizes are known when a value exists. Only bytes are lazy: a layer's blob may lie in a registry.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from builder.errors import ImageError
from builder.oci import media_types
from builder.oci.config import ExecConfig, History, ImageConfig
from builder.oci.descriptor import Blob, Descriptor
from builder.oci.media_types import ImageFormat


@dataclass(frozen=True, slots=True)
class Layer:
    """A finished layer: `descriptor` names its compressed bytes, `diff_id` the digest of its tar.

    `origin` is what errors call the image that it came with, "" for one that was made here.
    """

    descriptor: Descriptor
    diff_id: str
    blob: Blob = field(compare=False, repr=False)
    origin: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Image:
    """An image for one platform. `config.diff_ids` and `layers` always correspond."""

    config: ImageConfig
    layers: tuple[Layer, ...] = ()
    format: ImageFormat = "oci"
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if self.config.diff_ids != tuple(layer.diff_id for layer in self.layers):
            raise ImageError("the image config's diff_ids are not those of its layers")

    def append(self, layer: Layer, history: History) -> Image:
        """With one more layer on top."""
        config = replace(
            self.config,
            diff_ids=(*self.config.diff_ids, layer.diff_id),
            history=(*self.config.history, history),
        )
        return replace(self, config=config, layers=(*self.layers, layer))

    def configure(self, exec_config: ExecConfig, history: History | None = None) -> Image:
        """With another `config` object, and a history entry for it unless None."""
        entries = self.config.history if history is None else (*self.config.history, history)
        return replace(self, config=replace(self.config, exec=exec_config, history=entries))

    def config_bytes(self) -> bytes:
        """The config blob."""
        return self.config.to_bytes()

    def manifest(self, config_bytes: bytes | None = None) -> tuple[Descriptor, bytes]:
        """The manifest's descriptor and bytes. Raises ImageError when a layer cannot be named in the format.

        `config_bytes` stands in for config_bytes(): a config that was published already keeps its exact bytes.
        """
        docker = self.format == "docker"
        config = Descriptor.of(
            media_types.DOCKER_CONFIG if docker else media_types.OCI_CONFIG,
            self.config_bytes() if config_bytes is None else config_bytes,
        )
        media_type = media_types.DOCKER_MANIFEST if docker else media_types.OCI_MANIFEST
        value: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": media_type,
            "config": config.to_json(),
            "layers": [_layer_descriptor(layer.descriptor, self.format).to_json() for layer in self.layers],
        }
        if self.annotations:
            value["annotations"] = dict(self.annotations)
        data = json.dumps(value, indent=2, ensure_ascii=False).encode()
        return Descriptor.of(media_type, data), data


def _layer_descriptor(descriptor: Descriptor, image_format: ImageFormat) -> Descriptor:
    compression = media_types.layer_compression(descriptor.media_type)
    if compression is None:
        raise ImageError(f"{descriptor.digest} has media type {descriptor.media_type!r}, which is no layer")
    if "nondistributable" in descriptor.media_type or "foreign" in descriptor.media_type:
        return descriptor
    media_type = media_types.layer_media_type(image_format, compression)
    if media_type is None:
        raise ImageError(
            f"layer {descriptor.digest} is compressed with {compression}, which an image in {image_format} format "
            "cannot hold",
            "leave out --image-format=docker",
        )
    return replace(descriptor, media_type=media_type)
