"""Stages that read each other's files: each is there for as long as somebody reads it, and written only if needed."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder.layer.index import read_index
from builder.oci import layout
from builder.oci.media_types import layer_compression
from builder.oci.platform import Platform
from builder.rootfs.entry import Entry, FileType
from tests.build.program import Builder

COPIERS = 6


def _files(directory: Path) -> dict[str, int]:
    """Path -> size of every regular file of the image in a layout."""
    found = {}
    for layer in layout.read(layout.Location(directory), Platform.host()).image.layers:
        with layer.blob.open() as stream:
            for change in read_index(stream, compression=layer_compression(layer.descriptor.media_type)):
                if isinstance(change, Entry) and change.type is FileType.FILE:
                    found[change.path] = change.size
    return found


@pytest.mark.parametrize("attempt", range(3))
def test_layers_are_written_from_stages_that_ended_long_before(limpet: Builder, attempt: int) -> None:
    """Each layer of the last stage is large enough to be still under way when the last step has been taken.

    The stages between go on changing their own roots, which are mounted anew after every step, meanwhile.
    """
    lines = [
        "FROM base AS tools",
        "RUN head -c 3000000 /dev/urandom > /large",
        "FROM tools AS tree",
        "COPY note /note",
        "RUN mkdir -p /tree/etc && echo root:x:0: > /tree/etc/group && cp /large /tree",
    ]
    for number in range(COPIERS):
        lines += [
            f"FROM tools AS s{number}",
            f"COPY --from=tree /tree /from/{number}",
            f"RUN cat /from/{number}/etc/group > /group",
            "COPY note /note",
        ]
    lines += ["FROM scratch AS last", "COPY --from=tree /tree /"]
    lines += [f"COPY --from=s{number} /from /group /note /{number}/" for number in range(COPIERS)]
    limpet.dockerfile("\n".join(lines) + "\n", note="read me")
    out = limpet.directory / "out"
    done = limpet("--no-push", f"--oci-layout-path={out}")
    assert done.returncode == 0, done.stderr
    wanted = {"etc/group": 10, "large": 3_000_000}
    for number in range(COPIERS):
        wanted |= {f"{number}/{number}/etc/group": 10, f"{number}/{number}/large": 3_000_000}
        wanted |= {f"{number}/group": 10, f"{number}/note": 7}
    assert _files(out) == wanted


def test_layers_that_nobody_reads_are_not_written(limpet: Builder) -> None:
    """A stage from which files are copied is not an image; one that another stage starts from is."""
    limpet.dockerfile(
        "FROM base AS first\nRUN echo 1 > /1\n"
        "FROM first AS second\nRUN echo 2 > /2\n"
        "FROM scratch\nCOPY --from=second /1 /2 /\n"
    )
    out = limpet.directory / "out"
    done = limpet("--no-push", f"--oci-layout-path={out}")
    assert done.returncode == 0, done.stderr
    assert _files(out) == {"1": 2, "2": 2}
    written = [line for line in done.stderr.splitlines() if ", layer of " in line]
    assert [line.partition("] [")[2].partition(" ")[0] for line in written] == ["first", "2"]


def test_a_step_starts_when_what_it_reads_is_there(limpet: Builder) -> None:
    """Its time is its own, not what another stage takes."""
    limpet.dockerfile("FROM base AS first\nRUN sleep 0.1\nFROM base\nRUN --mount=from=first,target=/first sleep 0.1\n")
    log = limpet("--no-push").stderr
    assert log.index("] RUN sleep 0.1") < log.index("] RUN --mount=from=first")
