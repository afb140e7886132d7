"""What a layer cache holds, and what of it may go."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from builder.cache.directory import PARTIAL, RECORDS, remove_partial
from builder.cache.entry import BELOW, CREATED, DIFF_ID, INSTRUCTION, is_key, moment
from builder.cache.indexes import INDEX_OF, key_of_index
from builder.cache.record import BuildRecord
from builder.cache.repository import RECORD_PREFIX, read_record
from builder.errors import BuildError, ImageError, RegistryError
from builder.oci import layout
from builder.oci.config import ImageConfig
from builder.oci.descriptor import Descriptor
from builder.oci.index import Index
from builder.oci.manifest import Manifest, parse_manifest
from builder.oci.platform import Platform
from builder.registry.download import read_blob
from builder.registry.repository import Repository

_REQUESTS = 8  # at once
_CONFIG_LIMIT = 1 << 20  # bytes


@dataclass(frozen=True, slots=True)
class Item:
    """Something in a cache: an entry, or the record of a build.

    `name` is an entry's key. `size` is that of its layer in bytes, `created` (seconds since 1970) when it was made;
    for a record, when it was written. `keys` are the entries that a record tells of. `index` is the key of the index
    of a layer. What is `made_on_nothing` is in no record: indexes, and the contents of cache mounts.
    """

    name: str
    text: str
    size: int
    created: float
    place: str
    keys: frozenset[str] = frozenset()
    index: str = ""
    made_on_nothing: bool = False

    @property
    def is_record(self) -> bool:
        """Whether it is no entry."""
        return not is_key(self.name)

    @property
    def kind(self) -> str:
        """What it is: a "record", the "index" of a layer, what a "cache mount" holds, or a "layer"."""
        if self.is_record:
            return "record"
        if not self.made_on_nothing:
            return "layer"
        return "index" if self.text.startswith(INDEX_OF) else "cache mount"


class Inventory(Protocol):
    """A cache that can be looked through. Methods raise BuildError."""

    def items(self) -> list[Item]:
        """Everything in it, the oldest first."""
        ...

    def remove(self, items: Sequence[Item]) -> None:
        """Take `items` out."""
        ...


def removable(
    items: Iterable[Item],
    *,
    older_than: float | None,
    size: int,
    unreferenced: bool,
    keys: Collection[str],
    now: float,
) -> list[Item]:
    """What of `items` may go: what was made more than `older_than` seconds before `now`; with `unreferenced`, what no
    build's record tells of; what is called as one of `keys`; then the oldest until `size` bytes (0: any) are left; and
    the indexes of layers that go.
    """
    known = sorted(items, key=lambda item: item.created)
    gone = [item for item in known if older_than is not None and now - item.created > older_than]
    kept = [item for item in known if item not in gone]
    if unreferenced:
        referenced = {key for item in kept for key in item.keys}
        layers = (item for item in kept if not item.is_record and not item.made_on_nothing)
        gone += [item for item in layers if item.name not in referenced]
    gone += [item for item in kept if item.name in keys and item not in gone]
    left = [item for item in kept if item not in gone and not item.is_record]
    total = sum(item.size for item in left)
    for item in left:
        if not size or total <= size:
            break
        gone.append(item)
        total -= item.size
    return gone + _indexes_of(gone, [item for item in known if item not in gone])


def _indexes_of(gone: Iterable[Item], kept: Sequence[Item]) -> list[Item]:
    """What of `kept` is the index of a layer in `gone`, and of none that is kept."""
    orphans = {item.index for item in gone} - {item.index for item in kept}
    return [item for item in kept if item.name in orphans]


class DirectoryInventory:
    """The cache in the directory `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def items(self) -> list[Item]:
        """See Inventory."""
        try:
            names = [path for path in self.path.iterdir() if is_key(path.name)]
            records = list((self.path / RECORDS).iterdir()) if (self.path / RECORDS).is_dir() else []
        except FileNotFoundError:
            return []
        except OSError as error:
            raise BuildError(f"cannot read {self.path}: {error.strerror}") from error
        items = [self._entry(path) for path in names] + [_record_file(path) for path in records]
        return sorted((item for item in items if item is not None), key=lambda item: item.created)

    def _entry(self, path: Path) -> Item | None:
        try:
            resolved = layout.read(layout.Location(path), Platform.host())
            return _item(path.name, resolved.manifest, resolved.image.config, str(path))
        except ImageError:
            try:
                # Damaged: it has no other time than its directory's.
                return Item(path.name, "", 0, path.stat().st_mtime, str(path))
            except OSError:
                return None

    def remove(self, items: Sequence[Item]) -> None:
        """See Inventory. Also removes what killed builds left."""
        try:
            for item in items:
                _remove(Path(item.place), self.path)
            remove_partial(self.path)
        except OSError as error:
            raise BuildError(f"cannot remove entries of {self.path}: {error.strerror}") from error


def _remove(path: Path, below: Path) -> None:
    """At one moment for whoever reads."""
    if not path.is_dir():
        path.unlink(missing_ok=True)
        return
    scratch = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=below))
    try:
        path.rename(scratch / "old")
    except FileNotFoundError:
        pass
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _record_file(path: Path) -> Item | None:
    try:
        data, written = path.read_bytes(), path.stat().st_mtime
    except OSError:
        return None
    return Item(f"{RECORD_PREFIX}{path.name[:32]}", "record of a build", len(data), written, str(path), _keys(data))


class RepositoryInventory:
    """The cache in a repository, with kaniko's entries, if it has some."""

    def __init__(self, repository: Repository) -> None:
        """`repository` for pushing: what is pushed may be deleted, where the registry allows that at all."""
        self._repository = repository

    def items(self) -> list[Item]:
        """See Inventory."""
        try:
            tags = self._repository.tags()
        except RegistryError as error:
            if error.status == 404:
                return []
            raise
        wanted = [tag for tag in tags if is_key(tag) or tag.startswith(RECORD_PREFIX)]
        with ThreadPoolExecutor(_REQUESTS, thread_name_prefix="cache-list") as pool:
            found = [item for item in pool.map(self._item, wanted) if item is not None]
        return sorted(found, key=lambda item: item.created)

    def _item(self, tag: str) -> Item | None:
        name = f"{self._repository}:{tag}"
        try:
            described, data = self._repository.get_manifest(tag)
            manifest = parse_manifest(data, described.media_type, name)
        except ImageError:
            return None
        except RegistryError as error:
            if error.status == 404:
                return None  # somebody else removed it
            raise
        if isinstance(manifest, Index):
            return None
        place = described.digest
        if tag.startswith(RECORD_PREFIX):
            try:
                keys = _keys(read_record(manifest))
            except ImageError:
                keys = frozenset()
            size = sum(layer.size for layer in manifest.layers)
            return Item(tag, "record of a build", size, _created(manifest, None), place, keys)
        config = None if CREATED in manifest.annotations else self._config(manifest.config)
        return _item(tag, manifest, config, place)

    def _config(self, descriptor: Descriptor) -> ImageConfig | None:
        try:
            return ImageConfig.from_json(json.loads(read_blob(self._repository, descriptor, _CONFIG_LIMIT)))
        except (BuildError, ValueError):
            return None

    def remove(self, items: Sequence[Item]) -> None:
        """See Inventory. The registry's own garbage collection frees the space."""
        for digest in dict.fromkeys(item.place for item in items):
            try:
                self._repository.delete_manifest(digest)
            except RegistryError as error:
                if error.status == 404:
                    continue
                if error.status in (400, 405, 501):
                    raise RegistryError(
                        f"{self._repository}: the registry does not delete manifests: {error.message}",
                        "allow it in the registry's settings, or let its own rules remove old tags",
                        status=error.status,
                    ) from error
                raise


def _item(name: str, manifest: Manifest, config: ImageConfig | None, place: str) -> Item:
    text = str(manifest.annotations.get(INSTRUCTION, ""))
    if not text and config is not None and config.history:
        text = config.history[-1].created_by
    size = sum(layer.size for layer in manifest.layers)
    on_nothing = manifest.annotations.get(BELOW) == ""  # a layer's is a digest
    diff_id = manifest.annotations.get(DIFF_ID)
    index = key_of_index(str(diff_id)).value if diff_id and not on_nothing else ""
    return Item(name, text, size, _created(manifest, config), place, index=index, made_on_nothing=on_nothing)


def _created(manifest: Manifest, config: ImageConfig | None) -> float:
    text = str(manifest.annotations.get(CREATED, "")) or (config.created if config is not None else "")
    try:
        return moment(text).timestamp()
    except ValueError:
        return 0.0


def _keys(data: bytes) -> frozenset[str]:
    try:
        return frozenset(BuildRecord.decode(data).keys())
    except ImageError:
        return frozenset()
