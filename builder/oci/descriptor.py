"""Descriptors and digests (OCI image-spec, descriptor.md)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, BinaryIO, Protocol

from builder.errors import ImageError
from builder.oci.platform import Platform

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")


def is_digest(text: str) -> bool:
    """Whether `text` is `algorithm:hex` of a registered algorithm (sha256, sha512)."""
    return _DIGEST.fullmatch(text) is not None


def sha256(data: bytes) -> str:
    """`sha256:<64 hex digits>` of `data`."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Blob(Protocol):
    """Bytes that exist somewhere: a file, a registry, memory."""

    def open(self) -> BinaryIO:
        """A new stream over all the bytes, from the start.

        The reader gets exactly the descriptor's bytes: a stream from outside this process checks size and
        digest as it goes and raises ImageError at its end when they differ.
        """
        ...


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What a piece of content is, and which bytes it must be. `size` is in bytes."""

    media_type: str
    digest: str
    size: int
    platform: Platform | None = None
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)
    artifact_type: str = ""

    @classmethod
    def of(cls, media_type: str, data: bytes) -> Descriptor:
        """The descriptor of `data`."""
        return cls(media_type, sha256(data), len(data))

    @classmethod
    def from_json(cls, value: Any) -> Descriptor:
        """From a manifest's or index's member. Raises ImageError when a required field is absent or malformed."""
        try:
            digest, size = value["digest"], value["size"]
            if not is_digest(digest) or type(size) is not int or size < 0:
                raise ValueError(f"digest {digest!r}, size {size!r}")
            platform = value.get("platform")
            return cls(
                media_type=str(value.get("mediaType", "")),
                digest=digest,
                size=size,
                platform=Platform(
                    platform.get("os", ""),
                    platform.get("architecture", ""),
                    platform.get("variant", ""),
                    platform.get("os.version", ""),
                )
                if platform
                else None,
                annotations=MappingProxyType(dict(value.get("annotations") or {})),
                artifact_type=str(value.get("artifactType", "")),
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ImageError(f"malformed descriptor: {error}") from error

    def to_json(self) -> dict[str, Any]:
        """The JSON object of the specification, without empty members."""
        value: dict[str, Any] = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        if self.artifact_type:
            value["artifactType"] = self.artifact_type
        if self.platform:
            value["platform"] = {"architecture": self.platform.architecture, "os": self.platform.os}
            if self.platform.variant:
                value["platform"]["variant"] = self.platform.variant
            if self.platform.os_version:
                value["platform"]["os.version"] = self.platform.os_version
        if self.annotations:
            value["annotations"] = dict(self.annotations)
        return value
