"""Compression levels on a real layer, Debian's root filesystem: what a layer weighs, and what it costs.

    python benchmarks/levels.py [--tar FILE] [--markdown]

Times are CPU time of one thread, so that a busy machine disturbs little. Go's gzip, from which BuildKit's and kaniko's
layers come, takes part where there is a Go.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import zstandard
from isal import isal_zlib

ROOT = Path(__file__).parent.parent
BLOCK = 1 << 18  # as builder.layer.writer cuts it


@dataclass(frozen=True, slots=True)
class Row:
    """`size` in bytes, `seconds` of CPU time."""

    codec: str
    level: int
    size: int
    seconds: float
    note: str = ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tar", type=Path, default=ROOT / ".cache/debian-bookworm.tar", help="an uncompressed layer")
    parser.add_argument("--markdown", action="store_true")
    options = parser.parse_args()
    data = options.tar.read_bytes()
    form = "| {} | {} | {:.1f} MB | {:.2f} | {:.2f} s | {:.0f} MB/s | {} |" if options.markdown else (
        "{:14} {:3} {:7.1f} MB  ratio {:.2f} {:7.2f} s {:5.0f} MB/s  {}"
    )  # fmt: skip
    if options.markdown:
        print("| codec | level | size | ratio | CPU | speed | |\n|---|---|---|---|---|---|---|")
    for row in itertools.chain(ours(data), gos(options.tar)):
        speed = len(data) / 1e6 / row.seconds
        ratio = len(data) / row.size
        print(form.format(row.codec, row.level, row.size / 1e6, ratio, row.seconds, speed, row.note), flush=True)
    return 0


def ours(data: bytes) -> Iterator[Row]:
    """The codecs that Limpet has."""
    for level in (1, 2, 3):
        yield _measured("isal gzip", level, isal_zlib.compressobj(level, zlib.DEFLATED, 31), data, level == 3)
    for level in (1, 6):
        yield _measured("zlib gzip", level, zlib.compressobj(level, zlib.DEFLATED, 31), data)
    for level in (1, 3, 6):
        compressor = zstandard.ZstdCompressor(level=level, threads=1, write_checksum=True).compressobj()
        yield _measured("zstd", level, compressor, data, level == 3)


def _measured(codec: str, level: int, compressor: object, data: bytes, default: bool = False) -> Row:
    view, size = memoryview(data), 0
    before = time.process_time()
    for start in range(0, len(data), BLOCK):
        size += len(compressor.compress(view[start : start + BLOCK]))  # type: ignore[attr-defined]
    size += len(compressor.flush())  # type: ignore[attr-defined]
    return Row(codec, level, size, time.process_time() - before, "Limpet's default" if default else "")


def gos(tar: Path) -> Iterator[Row]:
    """Go's compress/gzip: -1, its default, is level 6."""
    go = shutil.which("go") or "/usr/local/go/bin/go"
    if not Path(go).exists():
        return
    for level, note in ((1, ""), (-1, "BuildKit's and kaniko's default")):
        with tar.open("rb") as stream:
            program = [go, "run", str(Path(__file__).with_name("gzip.go")), str(level)]
            said = subprocess.run(program, stdin=stream, capture_output=True, text=True, check=True).stdout.split()
        yield Row("Go gzip", level, int(said[0]), float(said[1]), note)


if __name__ == "__main__":
    sys.exit(main())
