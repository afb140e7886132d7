"""Telling what a manifest is, and refusing what is none."""

from __future__ import annotations

import json
from typing import Any

import pytest

from builder.errors import ImageError
from builder.oci import media_types
from builder.oci.index import Index
from builder.oci.manifest import Manifest, parse_manifest
from tests.images import image, layer

CONFIG = {"mediaType": media_types.OCI_CONFIG, "digest": "sha256:" + "1" * 64, "size": 2}
LAYER = {"mediaType": media_types.OCI_LAYER_GZIP, "digest": "sha256:" + "2" * 64, "size": 3}


def parse(value: Any, content_type: str = "") -> Index | Manifest:
    return parse_manifest(json.dumps(value).encode(), content_type, "app")


@pytest.mark.parametrize("image_format", ["oci", "docker"])
def test_what_is_written_is_read(image_format: media_types.ImageFormat) -> None:
    made = image(layer({"a": b"1"}, image_format=image_format), layer({"b": b"2"}), image_format=image_format)
    descriptor, data = made.manifest()
    document = parse_manifest(data, "", "app")
    assert isinstance(document, Manifest)
    assert (document.descriptor, document.format, document.data) == (descriptor, image_format, data)
    again = document.image(made.config_bytes(), [item.blob for item in made.layers], "app")
    assert again.manifest() == (descriptor, data)


def test_the_content_type_decides_where_the_document_is_silent() -> None:
    assert parse({"config": CONFIG, "layers": []}, media_types.DOCKER_MANIFEST).format == "docker"
    assert isinstance(parse({"manifests": []}, media_types.DOCKER_LIST + "; charset=utf-8"), Index)
    assert isinstance(parse({"schemaVersion": 2, "manifests": []}), Index)


@pytest.mark.parametrize(
    ("value", "content_type", "words"),
    [
        ({"schemaVersion": 1, "fsLayers": []}, "", "schema 1"),
        ({}, "application/vnd.docker.distribution.manifest.v1+prettyjws", "schema 1"),
        ({"manifests": [], "layers": []}, media_types.OCI_INDEX, "both"),
        ({"manifests": [], "config": CONFIG}, "", "both"),
        ({"mediaType": "application/vnd.oci.artifact.manifest.v1+json"}, "", "is no image"),
        ({"config": {**CONFIG, "mediaType": "application/vnd.cncf.helm.config.v1+json"}, "layers": []}, "", "config"),
        ({"config": CONFIG, "layers": [{**LAYER, "mediaType": "application/wasm"}]}, "", "application/wasm"),
        ({"config": CONFIG, "layers": [{**LAYER, "size": -1}]}, "", "malformed descriptor"),
        ({"config": CONFIG, "layers": [{**LAYER, "digest": "sha256:../../x"}]}, "", "malformed descriptor"),
        ({"mediaType": media_types.OCI_MANIFEST, "layers": []}, "", "no config"),
        ({"mediaType": media_types.OCI_INDEX}, "", "no manifests"),
        ([], "", "not a JSON object"),
    ],
)
def test_refuses(value: Any, content_type: str, words: str) -> None:
    with pytest.raises(ImageError, match=words):
        parse(value, content_type)


def test_not_json() -> None:
    with pytest.raises(ImageError, match="not JSON"):
        parse_manifest(b"<html>", "text/html", "app")


def test_config_and_manifest_must_agree() -> None:
    made = image(layer({"a": b"1"}))
    document = parse_manifest(made.manifest()[1], "", "app")
    assert isinstance(document, Manifest)
    with pytest.raises(ImageError, match="1 layers, but its config has 2 diff_ids"):
        document.image(image(layer({"a": b"1"}), layer({"b": b"1"})).config_bytes(), [made.layers[0].blob], "app")
