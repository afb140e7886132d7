"""Blobs from registries: streams that survive a broken connection and are checked against their descriptors."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import BinaryIO

import urllib3

from builder.errors import ImageError, RegistryError
from builder.events import Listener, Silent, Transfer
from builder.oci.descriptor import Descriptor
from builder.oci.verified import verified
from builder.registry import failures
from builder.registry.connections import Response
from builder.registry.repository import Repository

_PIECE = 128 << 10  # bytes asked of a connection at once: what came before a reset in a larger read is lost
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


@dataclass(frozen=True, slots=True)
class RemoteBlob:
    """A layer's bytes where they lie: in `repository`, else in one of `others` (mirrors and the original).

    Opening asks the registry; nothing is kept. `listener` hears of the progress.
    """

    repository: Repository
    descriptor: Descriptor
    others: tuple[Callable[[], Repository], ...] = ()
    listener: Listener = field(default_factory=Silent, compare=False)

    def open(self) -> BinaryIO:
        """See Blob. Raises RegistryError when no place has it, and while reading when the connection stays broken."""
        try:
            return open_blob(self.repository, self.descriptor, self.listener)
        except RegistryError:
            for other in self.others:
                try:
                    return open_blob(other(), self.descriptor, self.listener)
                except RegistryError:
                    continue  # the first place's error says most
            raise


class Download:
    """The bytes of a blob as they come; a broken connection is taken up where it broke.

    The Source of `builder.oci.verified`: it does not look at digests.
    """

    def __init__(self, repository: Repository, descriptor: Descriptor, listener: Listener) -> None:
        self._repository = repository
        self._descriptor = descriptor
        self._listener = listener
        self._offset = 0
        self._failures = 0  # since the last byte came
        self._told = 0
        self._key = f"pull {repository} {descriptor.digest}"
        listener.tell(Transfer(self._key, "pull", descriptor.digest, 0, descriptor.size))
        self._response = self._request()

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes; b"" at the end of what the registry has."""
        while True:
            try:
                data: bytes = self._response.raw.read(min(size, _PIECE))
            except (urllib3.exceptions.HTTPError, OSError) as error:
                self._resume(error)
                continue
            if data:
                self._offset += len(data)
                self._failures = 0
                self._tell()
                return data
            if self._offset >= self._descriptor.size:
                return b""
            # http.client takes a connection that was closed early for the end of the body.
            self._resume(urllib3.exceptions.IncompleteRead(self._offset, self._descriptor.size - self._offset))

    def close(self) -> None:
        self._response.close()
        self._tell(finished=True)

    def _resume(self, error: Exception) -> None:
        """Ask for the rest. Raises RegistryError after as many failures in a row as a request has retries."""
        self._response.close()
        exchange, settings = self._repository.transport.exchange, self._repository.transport.settings
        while True:
            in_vain = not settings.patient and failures.is_silence(error)
            if in_vain or self._failures >= settings.retries:
                host = self._repository.transport.registry
                raise failures.unreachable(error, host, str(self._repository), self._what()) from error
            exchange.pause(self._failures)
            self._failures += 1
            try:
                self._response = self._request()
                return
            except RegistryError as failure:
                if failure.status == 416:
                    name, size = f"blob {self._descriptor.digest} of {self._repository}", self._descriptor.size
                    raise ImageError(f"{name} ends after {self._offset} of {size} bytes") from failure
                if not failure.transient:
                    raise
                error = failure

    def _request(self) -> Response:
        """From the offset on, whether or not the registry knows ranges."""
        response = self._repository.get_blob(self._descriptor, self._offset)
        if not self._offset:
            return response
        if response.status_code == 206:
            match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
            if match and int(match[1]) == self._offset:
                return response
            response.close()
            raise RegistryError(f"{self._repository}: asked for bytes from {self._offset}, the registry sends others")
        self._skip(response)
        return response

    def _skip(self, response: Response) -> None:
        left = self._offset
        try:
            while left:
                data = response.raw.read(min(left, 1 << 20))
                if not data:
                    raise urllib3.exceptions.IncompleteRead(self._offset - left, left)
                left -= len(data)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            response.close()
            host = self._repository.transport.registry
            raise failures.unreachable(error, host, str(self._repository), self._what()) from error

    def _what(self) -> str:
        return f"downloading {self._descriptor.digest} at byte {self._offset} of {self._descriptor.size}"

    def _tell(self, *, finished: bool = False) -> None:
        if finished or self._offset - self._told >= 1 << 20 or self._offset == self._descriptor.size:
            self._told = self._offset
            self._listener.tell(
                Transfer(
                    self._key, "pull", self._descriptor.digest, self._offset, self._descriptor.size, finished=finished
                )
            )


def open_blob(repository: Repository, descriptor: Descriptor, listener: Listener | None = None) -> BinaryIO:
    """A stream over a blob, checked against `descriptor` (builder.oci.verified) and resumed when it breaks."""
    name = f"blob {descriptor.digest} of {repository}"
    return verified(Download(repository, descriptor, listener or Silent()), descriptor, name)


def read_blob(repository: Repository, descriptor: Descriptor, limit: int) -> bytes:
    """A small blob as a whole. Raises ImageError when it is larger than `limit` bytes or not what it should be."""
    if descriptor.size > limit:
        raise ImageError(f"{repository}: blob {descriptor.digest} is {descriptor.size} bytes long, {limit} are allowed")
    with open_blob(repository, descriptor) as stream:
        return stream.read()
