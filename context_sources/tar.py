"""`tar://PATH`, `tar://stdin` and `tar://-`: an archive of this machine."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from builder.errors import ContextError
from context_sources.archive import unpack
from context_sources.source import Fetched, FetchSettings

CHUNK = 1 << 19
STANDARD_INPUT = ("stdin", "-", "/dev/stdin")


class TarSource:
    """The revision is the digest of the archive as it was read, compression included."""

    def fetch(self, location: str, into: Path, settings: FetchSettings) -> Fetched:
        path = location.partition("://")[2]
        if path in STANDARD_INPUT:
            return self._unpack(settings.stdin, "tar://stdin", "the archive on standard input", into, settings)
        if not path:
            raise ContextError("context tar:// names no file", "use tar://PATH, or tar://- for standard input")
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise ContextError(f"context {location}: {error.strerror}", "name an archive by tar://PATH") from error
        try:
            if stat.S_ISDIR(os.fstat(descriptor).st_mode):
                raise ContextError(f"context {location} is a directory", f"use --context dir://{path}")
            return self._unpack(descriptor, f"tar://{os.path.abspath(path)}", path, into, settings)
        finally:
            os.close(descriptor)

    def _unpack(self, descriptor: int, source: str, name: str, into: Path, settings: FetchSettings) -> Fetched:
        if os.isatty(descriptor):
            raise ContextError(
                "context tar://stdin: standard input is a terminal",
                "pipe an archive into it; with kubectl run or docker run, pass --interactive (-i)",
            )
        status = os.fstat(descriptor)
        total = status.st_size if stat.S_ISREG(status.st_mode) else 0
        digest = hashlib.sha256()

        def chunks() -> Iterator[bytes]:
            while chunk := os.read(descriptor, CHUNK):
                digest.update(chunk)
                yield chunk

        unpack(chunks(), into, settings, name=name, total=total)
        return Fetched(path=into, source=source, revision=f"sha256:{digest.hexdigest()}", revision_kind="digest")
