"""ADD of a URL: the file that a web server answers with, checked while it streams to the disk."""

from __future__ import annotations

import email.utils
import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from builder.errors import ContextError
from builder.urls import redacted

if TYPE_CHECKING:
    import requests

UNNAMED = "__unnamed__"
_PIECE = 1 << 20
_TIMEOUT = (30, 120)  # seconds to connect, and between two pieces
_RETRIES = 4
_TRANSIENT = (408, 429, 500, 502, 503, 504)
_ALGORITHMS = ("sha256", "sha384", "sha512")


@dataclass(frozen=True, slots=True)
class Downloaded:
    """`mtime` in nanoseconds, from Last-Modified, else 0. `etag` is the server's, "" if it has none."""

    path: Path
    size: int
    digest: str  # sha256
    mtime: int
    etag: str


def file_name(url: str) -> str:
    """What ADD calls the file: the last part of the URL's path."""
    name = unquote(urlsplit(url).path, errors="surrogateescape").rstrip("/").rpartition("/")[2]
    return UNNAMED if name in ("", ".", "..") else name


def download(url: str, into: Path, checksum: str = "", session: requests.Session | None = None) -> Downloaded:
    """Fetch `url` into the new file `into`, redirects followed, failures that may pass retried.

    `checksum` is `sha256:...`, `sha384:...` or `sha512:...`, or "" for none. When this raises (ContextError) there is
    no file. Proxies and certificates are those of the environment, as in `session` if it is given.
    """
    own = session is None
    session = session or _session()
    try:
        attempt = 0
        while True:
            attempt += 1
            try:
                return _fetch(session, url, into, checksum)
            except BaseException as error:
                into.unlink(missing_ok=True)
                if not isinstance(error, _Interrupted) or attempt > _RETRIES:
                    raise
    finally:
        if own:
            session.close()


def last_modified(url: str) -> int | None:
    """When the server says `url` was modified, in seconds since 1970; None if it does not. Raises ContextError."""
    shown = redacted(url)
    # Not HEAD, which signed addresses and some servers refuse; the body is not read.
    with (
        _translated(shown),
        _session() as session,
        session.get(url, auth=_credentials(url), stream=True, timeout=_TIMEOUT) as response,
    ):
        if response.status_code >= 400:
            raise _refused(shown, response)
        modified = response.headers.get("Last-Modified", "")
    return _nanoseconds(modified) // 10**9 or None


class Downloads:
    """Files of URLs that were fetched to know what they are, for the ADD that copies them. Thread-safe.

    They lie in `directory`, which is made when it is needed.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._fetched: dict[str, Downloaded] = {}

    def fetch(self, url: str) -> Downloaded:
        """The file of `url`, fetched once. Raises ContextError."""
        with self._lock:
            known = self._fetched.get(url)
            if known is None:
                self._directory.mkdir(exist_ok=True)
                known = download(url, self._directory / str(len(self._fetched)))
                self._fetched[url] = known
            return known

    def known(self, url: str) -> Downloaded | None:
        """The file of `url`, if it was fetched before."""
        with self._lock:
            return self._fetched.get(url)


class _Interrupted(ContextError):
    """The connection broke in the middle of the file."""


def _fetch(session: requests.Session, url: str, into: Path, checksum: str) -> Downloaded:
    shown = redacted(url)
    with _translated(shown), session.get(url, auth=_credentials(url), stream=True, timeout=_TIMEOUT) as response:
        if response.status_code >= 400:
            raise _refused(shown, response)
        size, digest = _store(response, into, checksum, shown)
        modified = response.headers.get("Last-Modified", "")
        return Downloaded(into, size, digest, _nanoseconds(modified), response.headers.get("ETag", ""))


def entity_tag(url: str) -> str:
    """The strong ETag that the server gives `url` now; "" if it gives none, or does not answer well."""
    import requests

    try:
        with (
            _session() as session,
            session.head(url, auth=_credentials(url), timeout=_TIMEOUT, allow_redirects=True) as response,
        ):
            tag: str = response.headers.get("ETag", "") if response.status_code == 200 else ""
    except (requests.RequestException, ValueError):
        return ""
    return "" if tag.startswith("W/") else tag


def _session() -> requests.Session:
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3.util import Retry

    class Session(requests.Session):
        """Sends the credentials that the URL has, and none from ~/.netrc."""

        def rebuild_auth(self, prepared_request: requests.PreparedRequest, response: requests.Response) -> None:
            if self.should_strip_auth(response.request.url, prepared_request.url):  # type: ignore[no-untyped-call]
                prepared_request.headers.pop("Authorization", None)

    session = Session()
    # The file as it is: a server must not compress it for the transfer.
    session.headers.update({"Accept-Encoding": "identity", "User-Agent": "limpet"})
    retry = Retry(_RETRIES, status_forcelist=_TRANSIENT, backoff_factor=0.5, raise_on_status=False)
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=retry))
    return session


def _credentials(url: str) -> Callable[[requests.PreparedRequest], requests.PreparedRequest]:
    from requests.auth import HTTPBasicAuth

    try:
        parts = urlsplit(url)
    except ValueError:  # requests says so better
        return lambda request: request
    if parts.username is None:
        return lambda request: request
    return HTTPBasicAuth(unquote(parts.username), unquote(parts.password or ""))


def _store(response: requests.Response, into: Path, checksum: str, shown: str) -> tuple[int, str]:
    algorithm, _, wanted = checksum.partition(":")
    if checksum and algorithm not in _ALGORITHMS:
        raise ContextError(f"--checksum={checksum}: unknown algorithm {algorithm}", f"use {', '.join(_ALGORITHMS)}")
    digests = {name: hashlib.new(name) for name in {"sha256", algorithm or "sha256"}}
    size = 0
    with into.open("xb") as file:
        for piece in _pieces(response, shown):
            file.write(piece)
            for digest in digests.values():
                digest.update(piece)
            size += len(piece)
    found = {name: digest.hexdigest() for name, digest in digests.items()}
    if checksum and found[algorithm] != wanted.lower():
        raise ContextError(
            f"{shown}: the file's checksum is {algorithm}:{found[algorithm]}, --checksum wants {checksum}",
            "the file has changed, or is not the one that was meant: find out before changing the checksum",
        )
    return size, f"sha256:{found['sha256']}"


def _pieces(response: requests.Response, shown: str) -> Iterator[bytes]:
    import urllib3

    try:
        # Not iter_content: that undoes a Content-Encoding, and the file is what the server has.
        while piece := response.raw.read(_PIECE):
            yield piece
    except urllib3.exceptions.HTTPError as error:
        raise _Interrupted(f"{shown}: the connection broke while the file came", transient=True) from error


def _refused(shown: str, response: requests.Response) -> ContextError:
    status = response.status_code
    hints = {
        401: "ADD sends no credentials: fetch it in a RUN with a secret mount instead",
        403: "ADD sends no credentials: fetch it in a RUN with a secret mount instead",
        404: "is the address right?",
    }
    return ContextError(
        f"{shown}: the server answers {status} {response.reason}".rstrip(),
        hints.get(status, "try again later" if status in _TRANSIENT else ""),
        transient=status in _TRANSIENT,
    )


@contextmanager
def _translated(shown: str) -> Iterator[None]:
    import requests

    try:
        yield
    except requests.exceptions.SSLError as error:
        raise ContextError(
            f"{shown}: no trusted TLS connection", "REQUESTS_CA_BUNDLE names a file of certificates to trust"
        ) from error
    except requests.exceptions.InvalidURL as error:
        raise ContextError(f"{shown} is not an address", "write it as https://host/path") from error
    except requests.exceptions.RequestException as error:
        raise ContextError(
            f"{shown}: {_reason(error)}",
            "is the address right, and can this machine reach it?",
            transient=isinstance(error, requests.exceptions.ConnectionError | requests.exceptions.Timeout),
        ) from error
    except OSError as error:
        raise ContextError(f"{shown}: cannot store the file: {error.strerror}") from error


def _reason(error: BaseException) -> str:
    """The innermost cause that has words of its own: requests wraps urllib3 wraps the socket."""
    import requests

    if isinstance(error, requests.exceptions.Timeout):
        return "no answer in time"
    if isinstance(error, requests.exceptions.TooManyRedirects):
        return "too many redirects"
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        inner = [argument for argument in cause.args if isinstance(argument, BaseException)]
        reason = getattr(cause, "reason", None)
        cause = reason if isinstance(reason, BaseException) else inner[0] if inner else cause.__cause__
    return "the connection failed"


def _nanoseconds(modified: str) -> int:
    try:
        moment = email.utils.parsedate_to_datetime(modified)
    except (ValueError, TypeError):
        return 0
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0, int(moment.timestamp())) * 10**9
