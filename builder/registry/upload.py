"""Blobs to registries: present already, mounted, sent as a whole or in chunks."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, Literal
from urllib.parse import urljoin

from builder.errors import ImageError, RegistryError
from builder.events import Listener, Silent, Transfer
from builder.oci.descriptor import Blob, Descriptor
from builder.registry.connections import Response
from builder.registry.repository import Repository

Outcome = Literal["present", "mounted", "uploaded"]

_PIECE = 256 << 10  # bytes handed to the socket at once
_OCTETS = {"Content-Type": "application/octet-stream"}
_COMMITTED = (201, 202, 204)
# Answers of registries, or of proxies before them, that do not take a blob in one request.
_NOT_AT_ONCE = (404, 405, 411, 413, 415, 501)
# Answers that mean: this upload is lost, another one may succeed.
_UPLOAD_LOST = (400, 404, 416)
_RANGE = re.compile(r"(?:bytes=)?0-(\d+)")


@dataclass(frozen=True, slots=True)
class BlobUpload:
    """Sends blobs to one repository. Thread-safe; memory is one piece a blob, or one chunk."""

    repository: Repository
    listener: Listener = field(default_factory=Silent, compare=False)

    def ensure(self, descriptor: Descriptor, blob: Blob, sources: Iterable[str] = ()) -> Outcome:
        """See to it that the repository has the blob.

        `sources` are repositories of the same registry that have it. Raises RegistryError, and ImageError when
        `blob` is not what `descriptor` says.
        """
        if self.repository.has_blob(descriptor.digest):
            return "present"
        for source in sources:
            if source != self.repository.name and self._mount(descriptor.digest, source):
                return "mounted"
        self._upload(descriptor, blob)
        return "uploaded"

    def stream(self, data: BinaryIO, name: str = "stream") -> tuple[str, int]:
        """Upload bytes of unknown number in chunks; their digest (sha256) and size. Cannot be repeated as a whole."""
        location = self._start()
        digest, size = hashlib.sha256(), 0
        while chunk := data.read(self.repository.transport.settings.chunk_size):
            location = self._patch(location, chunk, size)
            digest.update(chunk)
            size += len(chunk)
            self._tell(name, size, 0)
        value = f"sha256:{digest.hexdigest()}"
        self._commit(location, value, None)
        self._tell(name, size, size, finished=True)
        return value, size

    def _mount(self, digest: str, source: str) -> bool:
        """Whether the registry took the blob from `source`. A refusal of any kind is a no."""
        try:
            response = self.repository.send(
                "POST",
                f"blobs/uploads/?mount={digest}&from={source}",
                also_pull=source,
                what=f"mounting {digest} from {source}",
                expected=(201, 202),
            )
        except RegistryError as error:
            if error.status in (400, 401, 403, 404, 405):
                return False  # the plain upload says what is wrong, if anything is
            raise
        response.close()
        if response.status_code == 202 and response.headers.get("Location"):
            self.repository.cancel_upload(_location(response))
        return response.status_code == 201

    def _upload(self, descriptor: Descriptor, blob: Blob) -> None:
        settings = self.repository.transport.settings
        chunked = descriptor.size > settings.monolithic_limit
        attempt = 0
        while True:
            # What is refused here is refused for good: the codes below are about bytes that were sent.
            location = self._start()
            try:
                if chunked:
                    self._in_chunks(location, descriptor, blob)
                else:
                    self._at_once(location, descriptor, blob)
                return
            except RegistryError as error:
                if not chunked and error.status in _NOT_AT_ONCE:
                    chunked = True
                    continue
                lost = error.status in _UPLOAD_LOST and "DIGEST_INVALID" not in error.message
                if attempt >= settings.retries or not (error.transient or lost):
                    raise
                self.repository.transport.exchange.pause(attempt)
                if self.repository.has_blob(descriptor.digest):
                    return  # the upload was complete, only its answer got lost
                chunked = chunked or (attempt > 0 and descriptor.size > settings.chunk_size)
                attempt += 1

    def _start(self) -> str:
        response = self.repository.send("POST", "blobs/uploads/", what="starting an upload", expected=(202,))
        response.close()
        return _location(response)

    def _at_once(self, location: str, descriptor: Descriptor, blob: Blob) -> None:
        with blob.open() as stream:
            self._commit(location, descriptor.digest, _Body(self, stream, descriptor))
        self._tell(descriptor.digest, descriptor.size, descriptor.size, finished=True)

    def _in_chunks(self, location: str, descriptor: Descriptor, blob: Blob) -> None:
        offset = 0
        with blob.open() as stream:
            while chunk := stream.read(self.repository.transport.settings.chunk_size):
                location = self._patch(location, chunk, offset)
                offset += len(chunk)
                self._tell(descriptor.digest, offset, descriptor.size)
        self._commit(location, descriptor.digest, None)
        self._tell(descriptor.digest, offset, descriptor.size, finished=True)

    def _patch(self, location: str, chunk: bytes, offset: int) -> str:
        """Send one chunk; where the next one goes. After a failure, what the registry did not get is sent again."""
        exchange = self.repository.transport.exchange
        start = offset
        for attempt in range(self.repository.transport.settings.retries + 1):
            rest = chunk[start - offset :]
            if not rest:
                return location
            try:
                response = self.repository.send(
                    "PATCH",
                    location,
                    what=f"uploading bytes {start}-{start + len(rest) - 1}",
                    expected=_COMMITTED,
                    headers={**_OCTETS, "Content-Range": f"{start}-{start + len(rest) - 1}"},
                    body=rest,
                    retries=0,
                    read_timeout=self.repository.transport.settings.commit_timeout,
                )
                response.close()
                return _location(response, location)
            except RegistryError as error:
                if not error.transient or attempt == self.repository.transport.settings.retries:
                    raise
                exchange.pause(attempt)
                location, received = self._status(location)
                if not offset <= received <= offset + len(chunk):
                    raise
                start = received
        raise AssertionError("unreachable")

    def _status(self, location: str) -> tuple[str, int]:
        """Where an upload goes on, and how many bytes the registry has of it."""
        response = self.repository.send("GET", location, what="asking how far an upload is", expected=(200, 202, 204))
        response.close()
        match = _RANGE.fullmatch(response.headers.get("Range", ""))
        # "0-0" is what registries say of one byte and of none; chunks are longer than that.
        received = int(match[1]) + 1 if match and match[1] != "0" else 0
        return _location(response, location), received

    def _commit(self, location: str, digest: str, body: _Body | None) -> None:
        url = f"{location}{'&' if '?' in location else '?'}digest={digest.replace(':', '%3A')}"
        self.repository.send(
            "PUT",
            url,
            what=f"uploading {digest}",
            expected=_COMMITTED,
            headers=_OCTETS,
            body=body if body is not None else b"",
            read_timeout=self.repository.transport.settings.commit_timeout,
        ).close()

    def _tell(self, name: str, done: int, total: int, *, finished: bool = False) -> None:
        self.listener.tell(Transfer(f"push {self.repository} {name}", "push", name, done, total, finished=finished))


class _Body:
    """A stream as the body of one request of known length. requests asks for `__len__` and iterates."""

    def __init__(self, upload: BlobUpload, stream: BinaryIO, descriptor: Descriptor) -> None:
        self._upload = upload
        self._stream = stream
        self._descriptor = descriptor

    def __len__(self) -> int:
        return self._descriptor.size

    def __iter__(self) -> Iterator[bytes]:
        sent, size = 0, self._descriptor.size
        while piece := self._stream.read(_PIECE):
            self._upload.repository.transport.exchange.check()
            sent += len(piece)
            if sent > size:
                break
            yield piece
            self._upload._tell(self._descriptor.digest, sent, size)
        if sent != size:
            raise ImageError(f"blob {self._descriptor.digest} is not {size} bytes long")


def _location(response: Response, fallback: str = "") -> str:
    location = response.headers.get("Location")
    if not location:
        if fallback:
            return fallback
        raise RegistryError(f"{response.url}: the registry accepts an upload but does not say where it goes")
    return urljoin(response.url, location)
