"""Media types of the OCI image specification and of Docker's schema 2."""

from __future__ import annotations

from typing import Literal

ImageFormat = Literal["oci", "docker"]
Compression = Literal["none", "gzip", "zstd"]

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP = OCI_LAYER + "+gzip"
OCI_LAYER_ZSTD = OCI_LAYER + "+zstd"

DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_LAYER_GZIP = DOCKER_LAYER + ".gzip"

MANIFESTS = (OCI_MANIFEST, DOCKER_MANIFEST)
INDEXES = (OCI_INDEX, DOCKER_LIST)

_COMPRESSION: dict[str, Compression] = {
    OCI_LAYER: "none",
    OCI_LAYER_GZIP: "gzip",
    OCI_LAYER_ZSTD: "zstd",
    DOCKER_LAYER: "none",
    DOCKER_LAYER_GZIP: "gzip",
    # "Foreign" layers are ordinary tars that the registry need not hold.
    "application/vnd.oci.image.layer.nondistributable.v1.tar": "none",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip": "gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd": "zstd",
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip": "gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd": "zstd",
}


def layer_compression(media_type: str) -> Compression | None:
    """How a layer of `media_type` is compressed; None when it is no layer type that Limpet knows."""
    return _COMPRESSION.get(media_type)


def layer_media_type(image_format: ImageFormat, compression: Compression) -> str | None:
    """The media type of a layer; None where the format has none (docker has no zstd)."""
    table = {
        ("oci", "none"): OCI_LAYER,
        ("oci", "gzip"): OCI_LAYER_GZIP,
        ("oci", "zstd"): OCI_LAYER_ZSTD,
        ("docker", "none"): DOCKER_LAYER,
        ("docker", "gzip"): DOCKER_LAYER_GZIP,
    }
    return table.get((image_format, compression))
