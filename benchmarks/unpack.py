"""Unpacking and writing a layer beside GNU tar, as ratios within one run: `python benchmarks/unpack.py [DIRECTORY]`.

The layer is made of DIRECTORY (default /usr/share). Each way runs several times, in turn,
and the medians are compared. Limpet checks the diff_id on the way, which tar does not.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from builder.layer.format import LayerFormat
from builder.layer.index import read_index
from builder.layer.unpack import unpack
from builder.layer.writer import write_layer
from builder.rootfs.changes import Snapshot, changes, with_hardlinks
from builder.rootfs.directory import DirectoryTree


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("directory", nargs="?", default="/usr/share", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", help="where to work (default: the temporary directory)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.work) as name:
        _compare(arguments.directory, Path(name), arguments.rounds)


def _compare(directory: Path, work: Path, rounds: int) -> None:
    tree = DirectoryTree(directory)
    found = list(with_hardlinks(tree.walk()))
    layer = write_layer(found, work)
    blob = work / layer.descriptor.digest.removeprefix("sha256:")
    print(f"{directory}: {len(found)} entries, {layer.descriptor.size / 1e6:.0f} MB gzip")

    def write(layer_format: LayerFormat) -> None:
        write_layer(with_hardlinks(DirectoryTree(directory).walk()), work, layer_format)

    _table(
        rounds,
        {
            "tar xzf": lambda: _fresh(work, lambda root: _run("tar", "xzf", str(blob), "-C", str(root))),
            "unpack, digests checked": lambda: _fresh(work, lambda root: _unpack(blob, root, layer.diff_id)),
            "index, digests checked": lambda: _index(blob, layer.diff_id),
        },
    )
    _table(
        rounds,
        {
            "tar cz": lambda: _run("tar", "czf", str(work / "tar.gz"), "-C", str(directory), "."),
            "write gzip": lambda: write(LayerFormat()),
            "write gzip 1": lambda: write(LayerFormat(level=1)),
            "write zstd": lambda: write(LayerFormat(compression="zstd")),
            "write none": lambda: write(LayerFormat(compression="none")),
            "snapshot": lambda: list(changes(Snapshot.of(directory), Snapshot.of(directory))),
        },
    )


def _table(rounds: int, ways: dict[str, Callable[[], object]]) -> None:
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            os.sync()
            started = time.monotonic()
            removal = way() or 0.0
            times[name].append(time.monotonic() - started - (removal if isinstance(removal, float) else 0.0))
    first = statistics.median(next(iter(times.values())))
    for name, seconds in times.items():
        median = statistics.median(seconds)
        print(f"  {name:26} {median:7.2f} s   {median / first:5.2f}")


def _fresh(work: Path, action: Callable[[Path], object]) -> float:
    """Do it in a new directory; the seconds that removing the directory took, which do not count."""
    root = work / "root"
    root.mkdir()
    action(root)
    started = time.monotonic()
    shutil.rmtree(root)
    return time.monotonic() - started


def _unpack(blob: Path, root: Path, diff_id: str) -> None:
    with blob.open("rb") as stream:
        unpack(stream, root, diff_id=diff_id)


def _index(blob: Path, diff_id: str) -> None:
    with blob.open("rb") as stream:
        read_index(stream, diff_id=diff_id)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


if __name__ == "__main__":
    main()
