"""A layer cache in a repository of a registry: each entry is an image of one layer, tagged with the key.

It is the shape of kaniko's cache repositories. A registry that does not answer soon, or not well, is left alone for
the rest of the build.
"""

from __future__ import annotations

import base64
import contextlib
import zlib
from dataclasses import replace
from datetime import UTC, datetime

from builder.cache.blob import CachedBlob, Reach
from builder.cache.complaints import Complaints
from builder.cache.entry import CREATED, Entry, Replacing, always, layer_of, read_entry
from builder.cache.key import CacheKey
from builder.errors import BuildError, ImageError, RegistryError
from builder.events import Listener
from builder.oci.config import History, ImageConfig
from builder.oci.image import Image
from builder.oci.index import Index
from builder.oci.manifest import Manifest, parse_manifest
from builder.oci.platform import Platform
from builder.oci.reference import Reference
from builder.registry.download import RemoteBlob
from builder.registry.push import Uploader
from builder.registry.registries import Registries
from builder.registry.settings import RegistrySettings

_DENIED = (401, 403)  # reading only: a repository that does not exist yet may be written
_ABSENT = 404
_RECORD = "limpet.cache.build"
_RECORD_LIMIT = 16 << 20  # bytes
RECORD_PREFIX = "build-"


class RepositoryCache:
    """Entries in the repository of `reference`. Thread-safe; to be closed."""

    def __init__(
        self, reference: Reference, registries: Registries, listener: Listener, *, writable: bool = True
    ) -> None:
        """`registries` are the build's: layers that another of its repositories has are mounted, not sent.

        A cache that is not to be written is asked for with no more rights than reading needs.
        """
        actions = "" if writable else "pull"
        self._registries = registries
        self._listener = listener
        self._complain = Complaints(listener)
        self._readable, self._writable = True, writable
        self._reach = Reach(lambda reason: self._complain(f"the cache {self} is not used: {reason}"))
        hasty = _hasty(registries.settings)
        self._asked = registries.with_settings(hasty).repository(reference, "push").for_actions(actions)
        moving = registries.with_settings(replace(hasty, retries=2))
        self._repository = moving.repository(reference, "push").for_actions(actions)
        self._uploader = Uploader(moving, self._repository)

    def __str__(self) -> str:
        return str(self._repository)

    def stop(self) -> None:
        """See LayerCache."""
        self._writable = False
        self._uploader.repository.transport.exchange.cancel()

    def close(self, *, cancel: bool) -> None:
        """End what is under way; with `cancel`, at once."""
        self._uploader.close(cancel=cancel)

    def get(self, key: CacheKey) -> Entry | None:
        """See LayerCache."""
        if not (self._readable and self._reach):
            return None
        try:
            return self._patiently(key)
        except ImageError as error:
            self._complain(f"cache entry {self}:{key} is not used: {error.message}")
        except RegistryError as error:
            if error.status == _ABSENT:
                return None
            self._readable = False
            self._writable = self._writable and error.status in _DENIED
            self._complain(f"the cache {self} is not used: {error.message}")
        return None

    def _patiently(self, key: CacheKey) -> Entry:
        """Once more, when an answer may have been an accident; not when there was none."""
        try:
            return self._get(key)
        except RegistryError as error:
            if not (error.transient and error.status):
                raise
            self._asked.transport.exchange.pause(0)
            return self._get(key)

    def _get(self, key: CacheKey) -> Entry:
        described, data = self._asked.get_manifest(key.value)
        name = f"{self}:{key}"
        manifest = parse_manifest(data, described.media_type, name)
        if isinstance(manifest, Index):
            raise ImageError(f"{name} is an index")
        layer = layer_of(manifest, name)
        blob = CachedBlob(RemoteBlob(self._repository, layer, (), self._listener), name, self._reach)
        entry = read_entry(manifest, blob, name)
        self._registries.note_blob(self._repository, layer.digest)
        return entry

    def get_record(self, name: CacheKey) -> bytes | None:
        """See LayerCache."""
        if not (self._readable and self._reach):
            return None
        try:
            described, data = self._asked.get_manifest(record_tag(name))
            return read_record(parse_manifest(data, described.media_type, f"{self}:{record_tag(name)}"))
        except BuildError:
            return None  # it explains things, nothing depends on it

    def put_record(self, name: CacheKey, data: bytes) -> None:
        """See LayerCache."""
        if not (self._writable and self._reach):
            return
        try:
            self._uploader.finish(record_image(data), (record_tag(name),))
        except BuildError as error:
            self._complain(f"cannot write the cache {self}: {error.message}")

    def put(self, key: CacheKey, entry: Entry, text: str, replacing: Replacing = always) -> bool:
        """See LayerCache."""
        if not (self._writable and self._reach):
            return False
        if replacing is not always:
            with contextlib.suppress(BuildError):  # what cannot be read may be replaced
                if self._readable and not replacing(self._get(key)):
                    return False
        try:
            self._uploader.finish(entry.image(text), (key.value,))
        except BuildError as error:
            self._writable = False
            self._complain(f"cannot write the cache {self}: {error.message}")
            return False
        return True


def record_tag(name: CacheKey) -> str:
    """The tag of a record: no entry has it."""
    return RECORD_PREFIX + name.value[:32]


def record_image(data: bytes) -> Image:
    """A record as an image: in an annotation, so that one request has it all."""
    from builder.layer.writer import empty_layer  # a build that is cached writes no record

    text = base64.b64encode(zlib.compress(data)).decode()
    image = Image(
        ImageConfig(Platform.host()),
        format="oci",
        annotations={_RECORD: text, CREATED: datetime.now(UTC).isoformat()},
    )
    # Some registries take no image without a layer.
    return image.append(empty_layer(), History(created_by="the record of a build"))


def read_record(manifest: Index | Manifest) -> bytes:
    """What record_image() was made of. Raises ImageError."""
    try:
        data = zlib.decompressobj().decompress(base64.b64decode(str(manifest.annotations[_RECORD])), _RECORD_LIMIT)
    except (KeyError, ValueError, zlib.error) as error:
        raise ImageError(f"it is no record of a build: {error}") from error
    return data


def _hasty(settings: RegistrySettings) -> RegistrySettings:
    """A cache that keeps the build waiting is worth nothing."""
    return replace(
        settings,
        retries=0,
        push_retries=0,
        connect_timeout=4,
        read_timeout=5,
        patient=False,
        longest_pause=2,
        commit_timeout=30,
    )
