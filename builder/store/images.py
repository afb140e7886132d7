"""What names and digests of images meant: manifests and configs, with the time when a registry said so."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from builder.errors import BuildError, ImageError
from builder.oci.descriptor import is_digest
from builder.oci.manifest import Manifest, ResolvedImage, parse_manifest
from builder.oci.platform import Platform
from builder.oci.verified import digest_of
from builder.registry.pull import KnownImage
from builder.store.entries import Entries, Entry, Making, name_of

KIND = "images"
NAMES = "names"


class StoredImages:
    """The images of a store: see builder.registry.pull.KnownImages. Thread-safe. `ttl` is in seconds."""

    def __init__(self, entries: Entries, ttl: float) -> None:
        self._entries = entries
        self._ttl = ttl

    def get(self, digest: str, platform: Platform) -> KnownImage | None:
        """The image that manifest or index `digest` is for `platform`, whenever it was stored."""
        entry = self._entries.open(KIND, _image_name(digest, platform))
        if entry is None:
            return None
        try:
            return _image_of(entry)
        except (KeyError, TypeError, ValueError, BuildError) as error:
            self._entries.remove(entry, str(error))
            return None

    def digest_of(self, reference: str, platform: Platform) -> str:
        """What `reference` was when a registry was asked last, however long ago; "" if it never was."""
        return self._named(reference, platform)[0]

    def fresh_digest_of(self, reference: str, platform: Platform) -> str:
        """What `reference` was, if that was found out within the time to live; else ""."""
        digest, checked = self._named(reference, platform)
        return digest if 0 <= time.time() - checked < self._ttl else ""

    def put(self, reference: str, platform: Platform, found: ResolvedImage) -> None:
        """A registry says that `reference` is `found` now."""
        top = found.index_digest or found.digest
        making = self._entries.make(KIND, _image_name(top, platform), wait=False)
        if isinstance(making, Making):
            making.finish(
                len(found.manifest.data) + len(found.config),
                digest=found.digest,
                index_digest=found.index_digest,
                media_type=found.manifest.descriptor.media_type,
                manifest=base64.b64encode(found.manifest.data).decode(),
                config=base64.b64encode(found.config).decode(),
            )
        if not self._entries.writable:
            return
        try:
            _write_name(self._name_path(reference, platform), reference, platform, top)
        except OSError as error:
            self._entries.failed(error)

    def _named(self, reference: str, platform: Platform) -> tuple[str, float]:
        try:
            value = json.loads(self._name_path(reference, platform).read_bytes())
            if value["reference"] == reference and value["platform"] == str(platform) and is_digest(value["digest"]):
                return value["digest"], float(value["checked"])
        except (OSError, ValueError, KeyError, TypeError):
            pass  # not there, or damaged: nothing but a request is lost
        return "", 0.0

    def _name_path(self, reference: str, platform: Platform) -> Path:
        digest = hashlib.sha256(json.dumps([reference, str(platform)]).encode()).hexdigest()
        return self._entries.root / NAMES / f"{digest}.json"


def _image_name(digest: str, platform: Platform) -> str:
    return f"{name_of(digest)}-{platform}".replace("/", "-")


def _image_of(entry: Entry) -> KnownImage:
    value: Any = entry.value
    data, config = base64.b64decode(value["manifest"]), base64.b64decode(value["config"])
    manifest = parse_manifest(data, value["media_type"], f"the store's {entry.name}")
    if not isinstance(manifest, Manifest):
        raise ImageError("it is no manifest")
    if manifest.descriptor.digest != value["digest"]:
        raise ImageError("the manifest's digest is another one")
    if digest_of(config, manifest.config.digest.partition(":")[0]) != manifest.config.digest:
        raise ImageError("the config's digest is another one")
    return KnownImage(manifest, config, value["index_digest"])


def _write_name(path: Path, reference: str, platform: Platform, digest: str) -> None:
    path.parent.mkdir(exist_ok=True)
    value = {"reference": reference, "platform": str(platform), "digest": digest, "checked": time.time()}
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".")
    try:
        with os.fdopen(descriptor, "w") as file:
            os.fchmod(descriptor, 0o644)
            json.dump(value, file)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
