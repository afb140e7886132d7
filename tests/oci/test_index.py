"""Choosing an image by platform."""

from __future__ import annotations

import json

import pytest

from builder.errors import ImageError
from builder.oci import media_types
from builder.oci.descriptor import Descriptor
from builder.oci.index import Index, compatible
from builder.oci.manifest import parse_manifest
from builder.oci.platform import Platform


def entry(text: str, content: bytes | None = None, version: str = "") -> Descriptor:
    system, architecture, *variant = text.split("/")
    platform = Platform(system, architecture, "".join(variant), version)
    made = Descriptor.of(media_types.OCI_MANIFEST, content or (text + version).encode())
    return Descriptor(made.media_type, made.digest, made.size, platform)


def choose(wanted: str, *platforms: str) -> str:
    index = Index(tuple(map(entry, platforms)))
    return str(index.choose(Platform.parse(wanted), "app").platform)


@pytest.mark.parametrize(
    ("wanted", "there", "chosen"),
    [
        ("linux/amd64", ("linux/arm64", "linux/amd64"), "linux/amd64"),
        ("linux/arm64", ("linux/arm64/v8", "linux/amd64"), "linux/arm64/v8"),
        ("linux/arm64/v8", ("linux/arm64",), "linux/arm64"),
        ("linux/arm", ("linux/arm/v5", "linux/arm/v6", "linux/arm/v7"), "linux/arm/v7"),
        ("linux/arm/v7", ("linux/arm/v5", "linux/arm/v6"), "linux/arm/v6"),
        ("linux/amd64/v3", ("linux/amd64", "linux/amd64/v2"), "linux/amd64/v2"),
        ("linux/amd64", ("linux/386", "linux/arm64"), "linux/386"),
        ("linux/arm64", ("linux/arm/v7", "linux/amd64"), "linux/arm/v7"),
        ("windows/amd64", ("linux/amd64", "windows/amd64"), "windows/amd64"),
    ],
)
def test_the_best_that_runs(wanted: str, there: tuple[str, ...], chosen: str) -> None:
    assert choose(wanted, *there) == chosen
    assert choose(wanted, *reversed(there)) == chosen


@pytest.mark.parametrize(
    ("wanted", "there"),
    [
        ("linux/arm64", ("linux/amd64", "linux/s390x")),
        ("linux/arm/v6", ("linux/arm/v7",)),
        ("linux/amd64", ("linux/amd64/v3",)),
        ("windows/amd64", ("linux/amd64",)),
    ],
)
def test_what_is_not_there_lists_what_is(wanted: str, there: tuple[str, ...]) -> None:
    with pytest.raises(ImageError) as caught:
        choose(wanted, *there, "unknown/unknown")
    assert f"app has no image for {wanted}" in caught.value.message
    assert all(platform in caught.value.message for platform in there)
    assert "unknown" not in caught.value.message


def test_an_only_entry_without_platform_is_taken() -> None:
    only = Descriptor.of(media_types.OCI_MANIFEST, b"x")
    assert Index((only,)).choose(Platform.parse("linux/arm64")) == only
    with pytest.raises(ImageError):
        Index((only, only)).choose(Platform.parse("linux/arm64"))


def test_windows_versions() -> None:
    index = Index((entry("windows/amd64", version="10.0.17763.1"), entry("windows/amd64", version="10.0.20348.2")))
    wanted = Platform("windows", "amd64", "", "10.0.20348")
    assert index.choose(wanted).platform == index.manifests[1].platform
    assert index.choose(Platform("windows", "amd64")).platform == index.manifests[0].platform


def test_the_chain_ends() -> None:
    assert list(map(str, compatible(Platform("linux", "arm64")))) == [
        "linux/arm64",
        "linux/arm/v8",
        "linux/arm/v7",
        "linux/arm/v6",
        "linux/arm/v5",
    ]
    assert compatible(Platform("linux", "riscv64")) == (Platform("linux", "riscv64"),)


@pytest.mark.parametrize("image_format", ["oci", "docker"])
def test_what_is_written_is_read(image_format: media_types.ImageFormat) -> None:
    index = Index((entry("linux/amd64"), entry("linux/arm/v7")), image_format, {"k": "v"})
    descriptor, data = index.encode()
    assert parse_manifest(data, "", "app") == index
    assert descriptor.media_type == json.loads(data)["mediaType"]
