"""`https://HOST/PATH`: an archive on a web server; `http://` when that is allowed."""

from __future__ import annotations

import base64
import email.utils
import hashlib
import os
import re
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit

import urllib3
from urllib3.exceptions import HTTPError, ProxyError, SSLError

from builder.errors import ContextError, UsageError
from context_sources.archive import unpack
from context_sources.http_body import body_of, broken_by
from context_sources.http_connections import connections_to
from context_sources.http_environment import UNTRUSTED
from context_sources.redaction import without_userinfo
from context_sources.retry import Body, Broken, opened, resumed
from context_sources.source import Fetched, FetchSettings

MOST_REDIRECTS = 10
REDIRECTS = frozenset((301, 302, 303, 307, 308))
CHECKSUM = re.compile(r"sha256[=:]([0-9a-fA-F]{64})")
HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(.*)")


@dataclass(frozen=True, slots=True)
class Login:
    """Headers that identify the user; `origin` says where they were found, for messages."""

    headers: Mapping[str, str] = field(repr=False)
    origin: str


class HttpsSource:
    """The revision is the archive's SHA-256, which `#sha256=HEX` in the location states in advance."""

    def fetch(self, location: str, into: Path, settings: FetchSettings) -> Fetched:
        download = Download(location, settings)
        checksum = checksum_of(location)
        body = opened(download.open_at, download.name, settings)
        digest = hashlib.sha256()
        with closing(resumed(body, download.open_at, download.name, settings, digest)) as chunks:
            unpack(chunks, into, settings, name=download.name, total=body.total)
        found = digest.hexdigest()
        if checksum and found != checksum:
            raise ContextError(f"{download.name} has SHA-256 {found}, not {checksum}", "the archive is another one")
        revision = f"sha256:{found}"
        return Fetched(
            path=into, source=download.name, revision=revision, revision_kind="digest", time=download.modified
        )


def _seconds(moment: str) -> int | None:
    """An HTTP date (RFC 9110 section 5.6.7) in seconds since 1970, None for anything else."""
    try:
        return int(email.utils.parsedate_to_datetime(moment).timestamp())
    except (ValueError, TypeError):
        return None


def checksum_of(location: str) -> str:
    """The SHA-256 that the fragment states, or ""."""
    fragment = urlsplit(location).fragment
    if not fragment:
        return ""
    match = CHECKSUM.fullmatch(fragment)
    if match is None:
        raise UsageError(
            f"--context: #{fragment} is no checksum", "use #sha256=HEX; a git repository's address ends in .git"
        )
    return match[1].lower()


class Download:
    """One URL, from any offset, redirects followed by hand: credentials go to the host they are meant for only."""

    def __init__(self, location: str, settings: FetchSettings) -> None:
        parts = urlsplit(location)
        if not parts.hostname:
            raise UsageError("--context: the URL names no host", "use https://HOST/PATH")
        self._settings = settings
        self._url = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, parts.query, ""))
        self._user = unquote(parts.username or ""), unquote(parts.password or "")
        self._extra = header_file(settings.header_file)
        self._version = ""
        self.modified: int | None = None  # what the server said when it was opened at 0, in seconds since 1970
        self._connections: dict[tuple[str, str], urllib3.PoolManager] = {}
        self.name = without_userinfo(location)

    def open_at(self, offset: int) -> Body:
        """Raises Broken, or ContextError when the server says no."""
        headers = {"Accept-Encoding": "identity", "User-Agent": "limpet"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
            if self._version.startswith('"'):
                headers["If-Range"] = self._version
        response = self._get(headers)
        if response.status == 416:
            response.close()
            raise ContextError(f"{self.name} changed while it was fetched", "start the build again", transient=True)
        body = body_of(response)
        if not offset:
            self._version = body.version
            self.modified = _seconds(response.headers.get("Last-Modified", ""))
        return body

    def _get(self, headers: Mapping[str, str]) -> urllib3.BaseHTTPResponse:
        url = self._url
        for _ in range(MOST_REDIRECTS):
            if not url.startswith("https://") and not (url.startswith("http://") and self._settings.allow_http):
                redirected = "" if url == self._url else f" redirects to {without_userinfo(url)}, which"
                raise UsageError(
                    f"--context {self.name}{redirected} is not https: it can be read and changed on its way",
                    "pass --context-allow-http to allow it",
                )
            login = self._login(url)
            response = self._request(url, {**headers, **(login.headers if login else {})})
            if response.status not in REDIRECTS or "Location" not in response.headers:
                return self._checked(response, login)
            url = urljoin(url, response.headers["Location"])
            self._settings.log("debug", f"{self.name}: {response.status} to {without_userinfo(url)}")
            response.close()
        raise ContextError(f"{self.name}: more than {MOST_REDIRECTS} redirects")

    def _request(self, url: str, headers: Mapping[str, str]) -> urllib3.BaseHTTPResponse:
        try:
            parts = urlsplit(url)
            connections = self._connections.get((parts.scheme, parts.netloc))
            if connections is None:
                connections = connections_to(url, self._settings.environment)
                self._connections[parts.scheme, parts.netloc] = connections
            return connections.request(
                "GET", url, headers=headers, redirect=False, retries=False, preload_content=False
            )
        except SSLError as error:
            reason = reason_of(error)
            if "CERTIFICATE_VERIFY_FAILED" not in str(error):
                raise Broken(reason) from error
            raise ContextError(
                f"{self.name}: the server's certificate is not trusted: {reason}",
                UNTRUSTED,
            ) from error
        except ProxyError as error:
            raise Broken(f"the proxy refused: {reason_of(error)}") from error
        except (HTTPError, OSError) as error:
            raise Broken(reason_of(error)) from error

    def _checked(self, response: urllib3.BaseHTTPResponse, login: Login | None) -> urllib3.BaseHTTPResponse:
        status = response.status
        if status in (200, 206, 416):
            return response
        response.close()
        broken = broken_by(response)
        if broken is not None:
            raise broken
        used = f"the credential was {login.origin}" if login else "no credential was sent"
        ways = "put user and password into a netrc file (NETRC), or a header into --context-header-file"
        if status in (401, 403, 407):
            raise ContextError(f"{self.name}: {status} {response.reason}; {used}", ways)
        if status in (404, 410):
            hint = "check the URL" if login else f"check the URL; if it needs a login, {ways}"
            raise ContextError(f"{self.name}: {status} {response.reason}, no such archive; {used}", hint)
        raise ContextError(f"{self.name}: the server answers {status} {response.reason}; {used}")

    def _login(self, url: str) -> Login | None:
        """For the URL's own origin the header file and the user in the URL; for any host what netrc has."""
        parts, own = urlsplit(url), urlsplit(self._url)
        if (parts.scheme, parts.netloc) == (own.scheme, own.netloc):
            headers, origins = dict(self._extra), []
            if headers:
                origins.append(f"the headers of {self._settings.header_file}")
            if any(self._user) and not any(name.lower() == "authorization" for name in headers):
                headers["Authorization"] = basic(*self._user)
                origins.append("the user in the URL")
            if headers:
                return Login(headers, " and ".join(origins))
        return netrc_login(parts.hostname or "", self._settings.environment)


def reason_of(error: BaseException) -> str:
    """The innermost reason of an error of urllib3, without addresses of objects."""
    while (inner := getattr(error, "reason", None) or (error.args[0] if error.args else None)) is not None:
        if not isinstance(inner, BaseException):
            break
        error = inner
    text = re.sub(r"<[^>]* at 0x[0-9a-f]+>:? ?|^[A-Za-z]+Connection\([^)]*\): ", "", str(error))
    return text or type(error).__name__


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode("ascii")


def netrc_login(host: str, environment: Mapping[str, str]) -> Login | None:
    """What NETRC, else $HOME/.netrc, has for `host`. An entry without a login is a bearer token."""
    path = environment.get("NETRC", "")
    if not path and environment.get("HOME"):
        path = os.path.join(environment["HOME"], ".netrc")
    if not path or not os.path.isfile(path):
        return None
    import netrc  # few have one

    try:
        entry = netrc.netrc(path).authenticators(host)
    except netrc.NetrcParseError as error:
        raise UsageError(f"{path}:{error.lineno}: {error.msg}", "it is read as a netrc file") from error
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", "let the build's user read it") from error
    if entry is None:
        return None
    user, _, password = entry
    value = basic(user, password or "") if user else f"Bearer {password}"
    return Login({"Authorization": value}, f"{path} for {host}")


def header_file(path: Path | None) -> dict[str, str]:
    """The `Name: value` lines of a file; empty lines and those that begin with # do not count."""
    if path is None:
        return {}
    try:
        lines = path.read_text(encoding="latin-1").splitlines()
    except OSError as error:
        raise UsageError(f"--context-header-file {path}: {error.strerror}", "mount the secret there") from error
    headers: dict[str, str] = {}
    for index, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        match = HEADER.fullmatch(line.rstrip())
        if match is None:
            raise UsageError(f"--context-header-file {path}:{index} is no header", "write Name: value, one a line")
        headers[match[1]] = match[2]
    return headers
