"""Cache mounts that travel: their content is kept in the layer cache, for builds that start with an empty disk.

A mount's directory is one entry of the cache, like a layer, under a key that is made of the mount's own. It is
fetched when no directory for the mount is here, and sent when the build has succeeded.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import threading
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from builder.cache import CacheDamaged, CacheKey, Entry, LayerCache
from builder.errors import BuildError, ImageError
from builder.events import Listener, Message
from builder.isolation.owners import with_noted_owner
from builder.isolation.removal import remove_tree
from builder.layer.format import LayerFormat
from builder.layer.unpack import unpack
from builder.layer.writer import write_layer
from builder.oci.media_types import layer_compression
from builder.rootfs.changes import with_hardlinks
from builder.rootfs.directory import DirectoryTree
from builder.rootfs.paths import join
from builder.steps.step import CacheMount
from builder.store.locks import lock_of

_TOP = "cache"  # the mount's directory in the layer, whose own root directory has no entry
_FORMAT = LayerFormat("oci", "zstd")


@dataclass(frozen=True, slots=True)
class _Used:
    mount: CacheMount
    path: Path


class TravellingMounts:
    """The cache mounts of one build; see builder.steps.cache_mounts.Elsewhere. Thread-safe.

    `ttl` is in seconds. Nothing that goes wrong fails the build.
    """

    def __init__(self, cache: LayerCache, work_dir: Path, listener: Listener, *, ttl: float) -> None:
        self._cache = cache
        self._work_dir = work_dir
        self._listener = listener
        self._ttl = ttl
        self._lock = threading.Lock()
        self._used: dict[str, _Used] = {}
        self._fetched: dict[str, str] = {}  # mount's key -> digest of the layer that it was

    def fetch(self, mount: CacheMount, key: str, into: Path) -> bool:
        """Make the new directory `into` what the cache has for the mount; False, and nothing made, if it has none."""
        whole = into.with_name(into.name + ".whole")
        try:
            entry = self._cache.get(_cache_key(key))
            if entry is None or entry.age(datetime.now(UTC)) > self._ttl:
                return False
            remove_tree(whole)  # of a build that was killed
            whole.mkdir()
            with entry.layer.blob.open() as stream:
                unpack(
                    stream,
                    whole,
                    compression=layer_compression(entry.layer.descriptor.media_type),
                    diff_id=entry.layer.diff_id,
                    not_applied=lambda entry, what: None,
                )
            if not (whole / _TOP).is_dir() or (whole / _TOP).is_symlink():
                raise ImageError("it is no cache mount")
            os.rename(whole / _TOP, into)
        except BuildError as error:
            told = isinstance(error, CacheDamaged) and error.told
            text = f"the cache mount {_name(mount)} begins without what {self._cache} has: {error.message}"
            self._listener.tell(Message(text, "info" if told else "warning"))
            return False
        finally:
            remove_tree(whole)
        with self._lock:
            self._fetched[key] = entry.layer.descriptor.digest
        size = entry.layer.descriptor.size
        self._listener.tell(Message(f"cache mount {_name(mount)}: {size} bytes from {self._cache}"))
        return True

    def used(self, mount: CacheMount, key: str, path: Path) -> None:
        """A step had the mount at `path`."""
        with self._lock:
            self._used[key] = _Used(mount, path)

    def send(self) -> None:
        """Keep in the cache what the build's mounts are now."""
        with self._lock:
            used = dict(self._used)
        for key, use in sorted(used.items()):
            try:
                self._send(key, use)
            except BuildError as error:
                self._warn(f"the cache mount {_name(use.mount)} is not kept in {self._cache}: {error.message}")
            except OSError as error:
                self._warn(f"the cache mount {_name(use.mount)} is not kept in {self._cache}: {error.strerror}")

    def _send(self, key: str, use: _Used) -> None:
        scratch = self._work_dir / "travelling"
        with ExitStack() as stack:
            # Somebody else's step may be writing to it right now; then that build will send it.
            lock = os.open(lock_of(use.path), os.O_RDWR | os.O_CLOEXEC)
            stack.callback(os.close, lock)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._listener.tell(Message(f"cache mount {_name(use.mount)}: in use, and not sent"))
                return
            scratch.mkdir(exist_ok=True)
            stack.callback(shutil.rmtree, scratch)
            tree = DirectoryTree(use.path, with_noted_owner)
            root = tree.entry("")
            assert root is not None
            entries = (
                replace(found, path=join(_TOP, found.path) if found.path else _TOP) for found in (root, *tree.walk())
            )
            layer = write_layer(with_hardlinks(entries), scratch, _FORMAT)
            if self._fetched.get(key) == layer.descriptor.digest:
                return  # it is as it was
            entry = Entry(layer, created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), below="")
            self._cache.put(_cache_key(key), entry, f"RUN --mount=type=cache,id={_name(use.mount)}")
        size = layer.descriptor.size
        self._listener.tell(Message(f"cache mount {_name(use.mount)}: {size} bytes to {self._cache}"))

    def _warn(self, text: str) -> None:
        self._listener.tell(Message(text, "warning"))


def _cache_key(key: str) -> CacheKey:
    return CacheKey.of("cache mount", key)


def _name(mount: CacheMount) -> str:
    return mount.id or mount.target
