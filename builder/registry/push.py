"""From an image to its name: layers go up while the build goes on, then config, manifest and tags."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

from builder.errors import RegistryError
from builder.events import Listener, Message, Silent, worked
from builder.oci import media_types
from builder.oci.blobs import FileBlob, MemoryBlob
from builder.oci.descriptor import Blob, Descriptor
from builder.oci.image import Image, Layer
from builder.oci.index import Index
from builder.oci.layout import StoredManifest
from builder.oci.manifest import ResolvedImage
from builder.registry import failures
from builder.registry.download import RemoteBlob
from builder.registry.registries import Registries
from builder.registry.repository import Repository
from builder.registry.upload import BlobUpload, Outcome

# How often a manifest is sent again to a registry that does not know a blob which it said it has. distribution 2 says
# so while another client uploads the same blob: it writes the file that links it to the repository anew.
_LOST_BLOBS = 3


class Uploader:
    """Brings images to one repository. Thread-safe. Use it as a context manager: leaving it by an error cancels."""

    def __init__(self, registries: Registries, repository: Repository, listener: Listener | None = None) -> None:
        self.repository = repository
        self._registries = registries
        self._listener = listener or Silent()
        self._upload = BlobUpload(repository, self._listener)
        self._pool = ThreadPoolExecutor(repository.transport.settings.parallel, thread_name_prefix="upload")
        self._jobs: dict[str, Future[Outcome]] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Uploader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(cancel=error is not None)

    def start(self, layer: Layer) -> None:
        """Begin to send a layer; returns at once. A layer that was started before is not sent again."""
        self._start(layer.descriptor, layer.blob)

    def finish(self, image: Image, tags: Iterable[str]) -> Descriptor:
        """Send what is still missing of `image`, its manifest last, and give it the `tags`; the manifest's descriptor.

        Raises RegistryError, after as many repetitions as --push-retry says, and ImageError.
        """
        manifest, data = image.manifest()
        return self._publish(manifest, data, tuple(tags), image.layers, image.config_bytes())

    def copy(self, resolved: ResolvedImage, tags: Iterable[str]) -> Descriptor:
        """finish() for an image that exists already: the digest stays."""
        manifest = resolved.manifest
        return self._publish(manifest.descriptor, manifest.data, tuple(tags), resolved.image.layers, resolved.config)

    def finish_index(self, index: Index, tags: Iterable[str]) -> Descriptor:
        """Publish an index of images that finish() has brought to this repository; the index's descriptor."""
        descriptor, data = index.encode()
        return self._publish(descriptor, data, tuple(tags))

    def copy_stored(self, stored: StoredManifest, tags: Iterable[str]) -> Descriptor:
        """Send a manifest of any kind with all that it names, the members of an index first; the digests stay."""
        for member in stored.members:
            self.copy_stored(member, ())
        return self._publish(stored.descriptor, stored.data, tuple(tags), stored.blobs)

    def _publish(
        self,
        manifest: Descriptor,
        data: bytes,
        tags: tuple[str, ...],
        layers: Sequence[Layer | FileBlob] = (),
        config: bytes | None = None,
    ) -> Descriptor:
        """Blobs first, then the manifest by each tag, or by its digest when there is none."""
        attempt = 0
        while True:
            try:
                self._blobs(layers, config)
                for tag in tags or (manifest.digest,):
                    self.repository.put_manifest(tag, manifest, data)
                return manifest
            except RegistryError as error:
                lost = failures.is_missing_blob_error(error)
                if attempt >= max(self._registries.settings.push_retries, _LOST_BLOBS if lost else 0):
                    raise
                if lost:
                    with self._lock:
                        self._jobs.clear()  # what was there has to be looked for again
                self._listener.tell(
                    Message(f"Retrying operation after {2**attempt}s due to {error.message}", "warning")
                )
                self.repository.transport.exchange.pause(attempt, 2.0**attempt)
                attempt += 1

    def close(self, *, cancel: bool = False) -> None:
        """Wait for what is under way; with `cancel`, drop what has not begun and break off the rest."""
        if cancel:
            self.repository.transport.exchange.cancel()
        self._pool.shutdown(wait=True, cancel_futures=cancel)

    def _blobs(self, layers: Sequence[Layer | FileBlob], config: bytes | None) -> None:
        jobs = [self._start(item.descriptor, item.blob if isinstance(item, Layer) else item) for item in layers]
        if config is not None:
            jobs.append(self._start(Descriptor.of(media_types.OCI_CONFIG, config), MemoryBlob(config)))
        for job in jobs:
            job.result()

    def _start(self, descriptor: Descriptor, blob: Blob) -> Future[Outcome]:
        with self._lock:
            job = self._jobs.get(descriptor.digest)
            if job is None or (job.done() and job.exception() is not None):
                job = self._jobs[descriptor.digest] = self._pool.submit(self._send, descriptor, blob)
            return job

    def _send(self, descriptor: Descriptor, blob: Blob) -> Outcome:
        registry, digest = self.repository.transport.registry, descriptor.digest
        if isinstance(blob, RemoteBlob):
            self._registries.note_blob(blob.repository, digest)
        with self._registries.blob_lock(registry, digest):
            sources = self._registries.blob_sources(registry, digest)
            with worked(self._listener, "upload", digest):
                outcome = self._upload.ensure(descriptor, blob, sources)
            self._registries.note_blob(self.repository, digest)
        self._listener.tell(Message(f"{self.repository}: layer {digest} {outcome}", "debug"))
        return outcome
