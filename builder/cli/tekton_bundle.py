"""Tekton bundles: an image whose layers are pipeline definitions, one each, told apart by annotations.

The layout is that of `tkn bundle push`: docker's media types; a layer is a tar of one file, the definition as JSON,
which YAML includes; the annotations are `dev.tekton.image.name`, `.kind` (lower case) and `.apiVersion` (without its
group).
"""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from builder.errors import UsageError
from builder.oci import media_types
from builder.oci.blobs import MemoryBlob
from builder.oci.config import History, ImageConfig
from builder.oci.descriptor import Descriptor, sha256
from builder.oci.image import Image, Layer
from builder.oci.platform import Platform

MAX_DEFINITIONS = 20  # what Tekton's resolver takes
_KINDS = ("Task", "StepAction", "Pipeline")


@dataclass(frozen=True, slots=True)
class Definition:
    """One Tekton object."""

    kind: str
    name: str
    api_version: str
    value: dict[str, Any]


def read_definitions(path: Path) -> list[Definition]:
    """The Tekton objects of a YAML file. Raises UsageError when it cannot be read or holds anything else."""
    try:
        documents = [document for document in yaml.safe_load_all(path.read_text()) if document]
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = str(getattr(error, "strerror", None) or error).replace("\n", " ")
        raise UsageError(f"{path}: {reason}", "give YAML files of Tasks, StepActions and Pipelines") from None
    found = []
    for document in documents:
        try:
            kind, name, version = document["kind"], document["metadata"]["name"], document["apiVersion"]
        except (KeyError, TypeError):
            raise UsageError(f"{path}: an object without apiVersion, kind or name") from None
        if kind not in _KINDS or not str(version).startswith("tekton.dev/"):
            raise UsageError(f"{path}: {kind} {name} of {version} is none of {', '.join(_KINDS)} of tekton.dev")
        found.append(Definition(str(kind), str(name), str(version), document))
    return found


def bundle(definitions: Sequence[Definition]) -> Image:
    """The bundle of `definitions`: the same objects give the same digest. Raises UsageError."""
    if len(definitions) > MAX_DEFINITIONS:
        raise UsageError(f"{len(definitions)} definitions: Tekton takes {MAX_DEFINITIONS} in a bundle")
    names = [(definition.kind, definition.name) for definition in definitions]
    if twice := {name for name in names if names.count(name) > 1}:
        kind, name = min(twice)
        raise UsageError(f"two definitions of {kind} {name}", "a bundle holds each name of a kind once")
    image = Image(ImageConfig(Platform("linux", "amd64")), format="docker")
    for definition in definitions:
        image = image.append(_layer(definition), History(f"{definition.kind} {definition.name}"))
    return image


def _layer(definition: Definition) -> Layer:
    data = json.dumps(definition.value, ensure_ascii=False, separators=(",", ":")).encode()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        member = tarfile.TarInfo(definition.name)
        member.size, member.mode = len(data), 0o644
        archive.addfile(member, io.BytesIO(data))
    compressed = gzip.compress(buffer.getvalue(), mtime=0)
    media_type = media_types.layer_media_type("docker", "gzip")
    assert media_type is not None
    descriptor = replace(
        Descriptor.of(media_type, compressed),
        annotations={
            "dev.tekton.image.name": definition.name,
            "dev.tekton.image.kind": definition.kind.lower(),
            "dev.tekton.image.apiVersion": definition.api_version.rpartition("/")[2],
        },
    )
    return Layer(descriptor, sha256(buffer.getvalue()), MemoryBlob(compressed))
