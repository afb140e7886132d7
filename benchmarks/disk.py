"""The filesystem that builders work on: ext4 with a journal, empty, as a node gives it to pods.

The machine's own may be anything. One without a journal, for example, searches for seconds when files are made
soon after many were deleted (ext4's recently_deleted), which says nothing about who makes them.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SIZE = 40 << 30  # bytes; the image is sparse


@contextmanager
def disk(directory: Path) -> Iterator[Path]:
    """A mounted filesystem of its own, below `directory`. Needs root and loop devices."""
    image, place = directory / "disk.img", directory / "disk"
    place.mkdir(exist_ok=True)
    if place.is_mount():
        subprocess.run(["umount", str(place)], check=True)
    with image.open("wb") as file:
        file.truncate(SIZE)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", str(image)], check=True)
    subprocess.run(["mount", "-o", "loop,discard", str(image), str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)
        image.unlink()
