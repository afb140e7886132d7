"""What a cache holds under a key, and the image that an entry is in a repository or a directory.

An entry is an image of one layer, as kaniko's cache repositories have them; what else there is to know of it stands
in the manifest's annotations, so that one request answers everything.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from builder.cache.key import CacheKey
from builder.errors import ImageError
from builder.oci.config import History, ImageConfig
from builder.oci.descriptor import Blob, Descriptor, is_digest
from builder.oci.image import Image, Layer
from builder.oci.manifest import Manifest
from builder.oci.platform import Platform

CREATED = "org.opencontainers.image.created"
DIFF_ID = "limpet.cache.diff-id"
BELOW = "limpet.cache.below"
_COPIED = "limpet.cache.copied"
INSTRUCTION = "limpet.cache.instruction"
_KEY = re.compile("[0-9a-f]{64}")


def moment(text: str) -> datetime:
    """An RFC 3339 time; UTC where it does not say. Raises ValueError."""
    made = datetime.fromisoformat(text)
    return made if made.tzinfo else made.replace(tzinfo=UTC)


def is_key(name: str) -> bool:
    """Whether a tag or a directory is an entry's: kaniko's have such names, too."""
    return _KEY.fullmatch(name) is not None


@dataclass(frozen=True, slots=True)
class Entry:
    """A finished layer. `created` (RFC 3339, UTC) is when it was made.

    `below` stands for the results of the RUN steps that it was made on: what RUN makes is not decided by its key
    alone, and a layer belongs on no other results than those. `copied` stands for the results that COPY --from took
    over, "" when there are none.
    """

    layer: Layer
    created: str
    below: str
    copied: str = ""

    def image(self, text: str) -> Image:
        """The entry as an image; `text` is the instruction."""
        config = ImageConfig(Platform.host(), created=self.created)
        annotations = {CREATED: self.created, DIFF_ID: self.layer.diff_id, BELOW: self.below, INSTRUCTION: text}
        if self.copied:
            annotations[_COPIED] = self.copied
        image = Image(config, format="oci", annotations=annotations)
        return image.append(self.layer, History(created_by=text, created=self.created))

    def age(self, now: datetime) -> float:
        """Seconds since it was made. Raises ImageError when `created` is no time."""
        try:
            return (now - moment(self.created)).total_seconds()
        except ValueError:
            raise ImageError(f"{self.created!r} is no time") from None


def read_entry(manifest: Manifest, blob: Blob, name: str) -> Entry:
    """The entry that `manifest` is, with `blob` for its layer. Raises ImageError when it is none."""
    return Entry(
        Layer(layer_of(manifest, name), _digest(manifest.annotations, DIFF_ID, name), blob),
        created=_member(manifest.annotations, CREATED, name),
        below=_member(manifest.annotations, BELOW, name),
        copied=str(manifest.annotations.get(_COPIED, "")),
    )


def layer_of(manifest: Manifest, name: str) -> Descriptor:
    """The only layer of an entry. Raises ImageError."""
    if len(manifest.layers) != 1:
        raise ImageError(f"{name} is no cache entry: it has {len(manifest.layers)} layers")
    return manifest.layers[0]


def _member(annotations: Mapping[str, str], key: str, name: str) -> str:
    value = annotations.get(key)
    if not isinstance(value, str):
        raise ImageError(f"{name} is no cache entry: it has no {key}")
    return value


def _digest(annotations: Mapping[str, str], key: str, name: str) -> str:
    value = _member(annotations, key, name)
    if not is_digest(value):
        raise ImageError(f"{name} is no cache entry: its {key} is {value!r}")
    return value


Replacing = Callable[[Entry], bool]
"""Whether an entry may be replaced."""


def always(entry: Entry) -> bool:
    """Every entry may be replaced."""
    return True


class LayerCache(Protocol):
    """A store of finished layers. No method raises for a store that fails: it says so once, and is empty then."""

    def get(self, key: CacheKey) -> Entry | None:
        """What `key` made earlier, however old. The layer's bytes are not moved."""
        ...

    def put(self, key: CacheKey, entry: Entry, text: str, replacing: Replacing = always) -> bool:
        """Keep `entry` under `key`; `text` is the instruction. Returns when it is done.

        It takes the place of what is there unless `replacing` says no to that; False then, and when it fails.
        """
        ...

    def get_record(self, name: CacheKey) -> bytes | None:
        """What was kept under `name` besides entries: see builder.cache.record."""
        ...

    def put_record(self, name: CacheKey, data: bytes) -> None:
        """Keep `data` under `name`, in place of what is there."""
        ...

    def stop(self) -> None:
        """What is being written ends soon, well or not."""
        ...


@dataclass(frozen=True, slots=True)
class WriteOnly:
    """`cache` for a build that does not trust what is in it."""

    cache: LayerCache

    def get(self, key: CacheKey) -> Entry | None:
        return None

    def put(self, key: CacheKey, entry: Entry, text: str, replacing: Replacing = always) -> bool:
        return self.cache.put(key, entry, text)

    def get_record(self, name: CacheKey) -> bytes | None:
        return self.cache.get_record(name)

    def put_record(self, name: CacheKey, data: bytes) -> None:
        self.cache.put_record(name, data)

    def stop(self) -> None:
        self.cache.stop()

    def __str__(self) -> str:
        return str(self.cache)
