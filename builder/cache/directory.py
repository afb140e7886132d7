"""A layer cache in a directory (`--cache-repo=oci:DIRECTORY`).

Each entry is an OCI image layout of its own, called by the key. Entries appear and go by renaming: readers and
writers of any number of builds need no locks, and what a killed build left half-written has no key's name.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
import time
from pathlib import Path

from builder.cache.blob import CachedBlob
from builder.cache.complaints import Complaints
from builder.cache.entry import Entry, Replacing, always, layer_of, read_entry
from builder.cache.key import CacheKey
from builder.errors import BuildError, ImageError
from builder.events import Listener
from builder.oci import layout
from builder.oci.blobs import FileBlob
from builder.oci.platform import Platform
from builder.oci.verified import read_to_end

SCHEME = "oci:"
PARTIAL = ".partial-"
RECORDS = "records"
_ABANDONED = 86400.0  # seconds


class DirectoryCache:
    """Entries in the directory `path`, which is made when the first one is written. Thread-safe.

    A hit reads the layer once to check it, and marks the entry as used now by its directory's modification time.
    """

    def __init__(self, path: Path, listener: Listener) -> None:
        self.path = path
        self._complain = Complaints(listener)
        self._damaged: set[CacheKey] = set()

    def __str__(self) -> str:
        return f"{SCHEME}{self.path}"

    def get(self, key: CacheKey) -> Entry | None:
        """See LayerCache."""
        directory = self.path / key.value
        try:
            if not directory.is_dir():
                return None
            entry = read(directory)
            with entry.layer.blob.open() as stream:
                read_to_end(stream)
        except BuildError as error:
            self._damaged.add(key)
            self._complain(f"cache entry {directory} is not used: {error.message}")
            return None
        except OSError as error:
            self._complain(f"the cache {self} cannot be read: {error.strerror or error}")
            return None
        with contextlib.suppress(OSError):  # a cache that can only be read is a cache, too
            os.utime(directory)
        return entry

    def put(self, key: CacheKey, entry: Entry, text: str, replacing: Replacing = always) -> bool:
        """See LayerCache."""
        directory = self.path / key.value
        try:
            with contextlib.suppress(ImageError):
                if key not in self._damaged and not replacing(read(directory)):
                    return False
            self.path.mkdir(parents=True, exist_ok=True)
            remove_partial(self.path)
            return self._put(directory, entry, text)
        except OSError as error:
            self._complain(f"cannot write the cache {self}: {error.strerror or error}")
        except BuildError as error:
            self._complain(f"cannot write the cache {self}: {error.message}")
        return False

    def get_record(self, name: CacheKey) -> bytes | None:
        """See LayerCache."""
        try:
            return (self.path / RECORDS / name.value).read_bytes()
        except OSError:
            return None

    def put_record(self, name: CacheKey, data: bytes) -> None:
        """See LayerCache."""
        try:
            (self.path / RECORDS).mkdir(parents=True, exist_ok=True)
            handle, partial = tempfile.mkstemp(prefix=PARTIAL, dir=self.path)
            with os.fdopen(handle, "wb") as file:
                os.fchmod(handle, 0o644)
                file.write(data)
            os.replace(partial, self.path / RECORDS / name.value)
        except OSError as error:
            self._complain(f"cannot write the cache {self}: {error.strerror or error}")

    def stop(self) -> None:
        """See LayerCache: copying a layer takes no time that matters."""

    def _put(self, directory: Path, entry: Entry, text: str) -> bool:
        """False when another build was faster."""
        scratch = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=self.path))
        try:
            layout.write(scratch / "new", entry.image(text))
            with contextlib.suppress(FileNotFoundError):
                os.rename(directory, scratch / "old")
            try:
                os.rename(scratch / "new", directory)
                return True
            except OSError as error:
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                    raise
                return False
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def remove_partial(path: Path) -> None:
    """Remove what killed builds left half-written in the cache `path`: what nobody has touched for a day."""
    for partial in path.glob(f"{PARTIAL}*"):
        with contextlib.suppress(OSError):
            if time.time() - partial.lstat().st_mtime < _ABANDONED:
                continue
            if partial.is_dir():
                shutil.rmtree(partial)
            else:
                partial.unlink()


def read(directory: Path) -> Entry:
    """The entry that is the layout `directory`. Raises ImageError."""
    resolved = layout.read(layout.Location(directory), Platform.host())
    descriptor = layer_of(resolved.manifest, str(directory))
    path = layout.blob_path(directory, descriptor.digest)
    try:
        size = path.stat().st_size
    except OSError as error:
        raise ImageError(f"cannot read {path}: {error.strerror}") from error
    if size != descriptor.size:
        raise ImageError(f"{path} has {size} of {descriptor.size} bytes")
    return read_entry(resolved.manifest, CachedBlob(FileBlob(path, descriptor), directory.name), str(directory))
