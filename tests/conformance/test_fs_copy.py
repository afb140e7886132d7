"""COPY, ADD and WORKDIR by the whole command line: from a base in an OCI layout into an OCI layout.

Root filesystem, configuration and history are read back from the layers.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from builder.cli.main import main
from builder.layer.index import read_index
from builder.layer.writer import write_layer
from builder.oci import layout
from builder.oci.config import ExecConfig, History, ImageConfig
from builder.oci.image import Image
from builder.oci.media_types import layer_compression
from builder.oci.platform import Platform
from builder.rootfs.layered import LayeredTree
from tests.conformance import vectors
from tests.conformance.filesystem import differences, layer_entries, write_directory

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the trees have files of several owners: needs uid 0")

_WHITEOUT_NAME = "no layer can hold a file named .wh.NAME: to every reader it is the removal of NAME"
DEVIATIONS = {
    "cases-141": _WHITEOUT_NAME,
    "cases-161": _WHITEOUT_NAME,
}

_PLATFORM = Platform.host()
_CONFIG = {"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], "Cmd": ["/bin/sh"]}
_BASE_CONFIG = ImageConfig(_PLATFORM, ExecConfig.from_json(_CONFIG))


@pytest.fixture(scope="module")
def start(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The trees that all cases start from."""
    return vectors.read(vectors.directory(request.config) / "fs_copy.json")


@pytest.fixture(scope="module")
def context(start: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("context")
    write_directory(start["context_tree"], directory)
    return directory


@pytest.fixture(scope="module")
def base_layout(start: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The base image as an OCI layout."""
    directory = tmp_path_factory.mktemp("base")
    layer = write_layer(layer_entries(start["base_tree"]), tmp_path_factory.mktemp("layers"))
    image = Image(_BASE_CONFIG).append(layer, History(created_by="base", created="2020-01-01T00:00:00Z"))
    layout.write(directory, image)
    return directory


@pytest.mark.vectors("fs_copy")
def test_command_line(case: dict[str, Any], context: Path, base_layout: Path, tmp_path: Path) -> None:
    """`limpet build` with an OCI layout as base, into an OCI layout."""
    code, out = _build(case, context, base_layout, tmp_path)
    if "error" in case:
        assert code == 1
        assert not (out / "index.json").exists()
        return
    assert code == 0
    image = layout.read(layout.Location(out), _PLATFORM).image
    tree = LayeredTree()
    for number, layer in enumerate(image.layers):
        spool = tmp_path / f"layer-{number}"
        spool.mkdir()
        with layer.blob.open() as stream:
            compression = layer_compression(layer.descriptor.media_type)
            tree = tree.apply(read_index(stream, compression=compression, diff_id=layer.diff_id, spool=spool))
    assert not differences(case["tree"], tree)
    assert image.config.exec.to_json() == case["config"]
    entries = [{"created_by": entry.created_by, "empty_layer": entry.empty_layer} for entry in image.config.history]
    from_base = [{"created_by": "base", "empty_layer": False}] if entries[0]["created_by"] == "base" else []
    assert entries == [*from_base, *case["history"]]


def _build(case: dict[str, Any], context: Path, base: Path, directory: Path) -> tuple[int, Path]:
    dockerfile, out = directory / "Dockerfile", directory / "out"
    dockerfile.write_text(case["dockerfile"])
    if "dockerignore" in case:
        (directory / "Dockerfile.dockerignore").write_text(case["dockerignore"])
    work = directory / "work"
    work.mkdir()
    arguments = [
        f"--context={context}",
        f"--dockerfile={dockerfile}",
        f"--build-context=base=oci-layout://{base}",
        f"--oci-layout-path={out}",
        f"--work-dir={work}",
        "--no-push",
        "--isolation=none",
        "--unknown-owners=root",
    ]
    return main(arguments), out
