"""Peak memory of writing, indexing and unpacking a layer with one large file: `python benchmarks/layer_memory.py`.

Each runs in a process of its own, whose largest resident set is printed. The file is 3 GiB of random data (which
does not compress, so the blob is as large), or with --sparse one hole.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
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
from builder.oci.media_types import Compression
from builder.rootfs.entry import Entry, FileContent, FileType

EXPECTED = 200  # MiB


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--gib", type=float, default=3)
    parser.add_argument("--sparse", action="store_true")
    parser.add_argument("--compression", choices=["gzip", "zstd", "none"], default="gzip")
    parser.add_argument("--directory", help="where to work (default: the temporary directory)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.directory) as name:
        work = Path(name)
        size = int(arguments.gib * (1 << 30))
        _make(work / "file", size, arguments.sparse)
        print(f"{arguments.gib:g} GiB, {'a hole' if arguments.sparse else 'random'}, {arguments.compression}")
        peaks = [
            _measure("write", lambda: _write(work, size, arguments.compression)),
            _measure("index", lambda: read_index(_blob(work).open("rb"))),
            _measure("unpack", lambda: unpack(_blob(work).open("rb"), _new(work / "root"))),
        ]
    if max(peaks) >= EXPECTED:
        sys.exit(f"peak memory is not under {EXPECTED} MiB")


def _make(path: Path, size: int, sparse: bool) -> None:
    with path.open("wb") as file:
        if sparse:
            file.truncate(size)
            return
        block = os.urandom(1 << 20)
        for number in range(0, size, len(block)):
            # Shifted a little each time, so that no window of a compressor sees it again as it was.
            shift = number >> 20 & 0xFFF
            file.write(block[shift:] + block[:shift])


def _write(work: Path, size: int, compression: Compression) -> None:
    blobs = _new(work / "blobs")
    entry = Entry("file", FileType.FILE, size=size, content=FileContent(str(work / "file")))
    write_layer([entry], blobs, LayerFormat(compression=compression))


def _blob(work: Path) -> Path:
    return next((work / "blobs").iterdir())


def _new(path: Path) -> Path:
    path.mkdir()
    return path


def _measure(name: str, action: Callable[[], object]) -> float:
    """Print and return the peak resident set of `action` in a process of its own, in MiB."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def run() -> None:
        started = time.monotonic()
        action()
        sender.send((time.monotonic() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))

    process = context.Process(target=run)
    process.start()
    sender.close()
    try:
        seconds, peak = receiver.recv()
    except EOFError:
        sys.exit(f"{name} failed")
    process.join()
    print(f"{name:8} {seconds:6.1f} s   peak RSS {peak:6.1f} MiB")
    return float(peak)


if __name__ == "__main__":
    main()
