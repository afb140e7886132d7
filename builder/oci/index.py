"""Image indexes: one name for the images of several platforms (OCI image-spec, image-index.md)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from builder.errors import ImageError
from builder.oci import media_types
from builder.oci.descriptor import Descriptor
from builder.oci.image import Image
from builder.oci.media_types import ImageFormat
from builder.oci.platform import Platform


@dataclass(frozen=True, slots=True)
class Index:
    """An image index (OCI) or manifest list (Docker)."""

    manifests: tuple[Descriptor, ...]
    format: ImageFormat = "oci"
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)

    def choose(self, platform: Platform, name: str = "the index") -> Descriptor:
        """The entry that serves `platform` best.

        Exactly the platform first, then what such a machine also runs, in containerd's order (an older variant,
        386 on amd64, arm on arm64). Raises ImageError that lists the platforms there are.
        """
        for wanted in compatible(platform):
            for entry in self.manifests:
                if entry.platform and entry.platform.matches(wanted) and _same_version(entry.platform, platform):
                    return entry
        unnamed = [entry for entry in self.manifests if entry.platform is None]
        if len(unnamed) == 1 and len(self.manifests) == 1:
            return unnamed[0]
        found = sorted({str(entry.platform) for entry in self.manifests if entry.platform} - {"unknown/unknown"})
        raise ImageError(
            f"{name} has no image for {platform}; there is {', '.join(found) or 'none that names a platform'}",
            "choose one of them with --custom-platform or FROM --platform",
        )

    def encode(self) -> tuple[Descriptor, bytes]:
        """The index's descriptor and bytes."""
        media_type = media_types.OCI_INDEX if self.format == "oci" else media_types.DOCKER_LIST
        value: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": media_type,
            "manifests": [entry.to_json() for entry in self.manifests],
        }
        if self.annotations:
            value["annotations"] = dict(self.annotations)
        data = json.dumps(value, indent=2, ensure_ascii=False).encode()
        return Descriptor.of(media_type, data), data


def index_of(images: Sequence[Image]) -> Index:
    """The index of `images`, one for each platform; Docker's list where all of them are Docker's."""
    entries = tuple(replace(image.manifest()[0], platform=image.config.platform) for image in images)
    return Index(entries, "docker" if all(image.format == "docker" for image in images) else "oci")


def descriptor_of(images: Sequence[Image]) -> Descriptor:
    """What names `images`: the only one's manifest, or the index of several."""
    return images[0].manifest()[0] if len(images) == 1 else index_of(images).encode()[0]


def compatible(platform: Platform) -> tuple[Platform, ...]:
    """`platform` and what a machine of it also runs, best first (containerd/platforms, Only)."""
    chain = [platform]
    version = int(platform.variant[1:]) if platform.variant[1:].isdigit() else 0
    if platform.architecture == "amd64":
        chain += [replace(platform, variant=f"v{older}") for older in range(version - 1, 0, -1)]
        chain.append(replace(platform, architecture="386", variant=""))
    elif platform.architecture == "arm":
        chain += [replace(platform, variant=f"v{older}") for older in range((version or 7) - 1, 4, -1)]
    elif platform.architecture == "arm64":
        chain += [
            replace(platform, architecture="arm", variant=f"v{older}") for older in range(min(version or 8, 8), 4, -1)
        ]
    return tuple(chain)


def _same_version(entry: Platform, wanted: Platform) -> bool:
    """Windows images run on one build only; `wanted` without a version takes any."""
    return not wanted.os_version or not entry.os_version or entry.os_version.startswith(wanted.os_version)
