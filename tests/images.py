"""Small images for tests, made in memory."""

from __future__ import annotations

import gzip
import io
import random
import tarfile

import zstandard

from builder.oci import media_types
from builder.oci.blobs import MemoryBlob
from builder.oci.config import ExecConfig, History, ImageConfig
from builder.oci.descriptor import Descriptor, sha256
from builder.oci.image import Image, Layer
from builder.oci.media_types import Compression, ImageFormat
from builder.oci.platform import Platform

AMD64 = Platform("linux", "amd64")


def tar(files: dict[str, bytes]) -> bytes:
    """A tar of regular files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def layer(files: dict[str, bytes], compression: Compression = "gzip", image_format: ImageFormat = "oci") -> Layer:
    """A layer of regular files."""
    data = tar(files)
    compressed = {
        "none": lambda: data,
        "gzip": lambda: gzip.compress(data, 1, mtime=0),
        "zstd": lambda: zstandard.compress(data),
    }[compression]()
    media_type = media_types.layer_media_type(image_format, compression)
    assert media_type is not None
    return Layer(Descriptor.of(media_type, compressed), sha256(data), MemoryBlob(compressed))


def noise(size: int, seed: int = 0) -> bytes:
    """Bytes that do not compress."""
    return random.Random(seed).randbytes(size)


def image(*layers: Layer, platform: Platform = AMD64, image_format: ImageFormat = "oci", label: str = "") -> Image:
    """An image of `layers`, by default of one small one."""
    labels = {"label": label} if label else {}
    made = Image(ImageConfig(platform, ExecConfig(cmd=("/bin/sh",), labels=labels)), format=image_format)
    for number, item in enumerate(layers or (layer({"hello": b"hello\n"}, image_format=image_format),)):
        made = made.append(item, History(f"layer {number}"))
    return made
