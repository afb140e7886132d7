"""`https://ACCOUNT.blob.core.windows.net/CONTAINER/BLOB` or `.../PREFIX/`, by the REST API of Blob Storage."""

from __future__ import annotations

import email.utils
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

import urllib3

from builder.errors import ContextError, UsageError
from context_sources.azure_address import BlobAddress, custom_endpoint
from context_sources.azure_credentials import Anonymous, credential_for
from context_sources.azure_listing import NotAListing, read_page
from context_sources.http_body import body_of, broken_by, raw_chunks
from context_sources.http_connections import asking, connections_to
from context_sources.objects import DEFAULT_OBJECT, StoredObject, fetch_archive, fetch_tree
from context_sources.retry import Body, Refused, answered
from context_sources.source import Fetched, FetchSettings

VERSION = "2021-12-02"  # of the API: names that are no XML are encoded from 2021-02-12 on
NOT_SAS = ("snapshot", "versionid")


def parse(location: str, environment: Mapping[str, str]) -> BlobAddress:
    """Read a blob's URL. Raises UsageError when it does not name one."""
    parts = urlsplit(location)
    root = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
    endpoint = custom_endpoint(environment)
    if endpoint and location.startswith(endpoint + "/"):
        root, path = endpoint, parts.path[len(urlsplit(endpoint).path) :]
        account = urlsplit(endpoint).path.strip("/") or (parts.hostname or "").partition(".")[0]
    else:
        path, account = parts.path, (parts.hostname or "").partition(".")[0]
    container, _, blob = unquote(path).lstrip("/").partition("/")
    if not container:
        raise UsageError(
            "--context: the URL names no container", "use https://ACCOUNT.blob.core.windows.net/CONTAINER/BLOB"
        )
    if {".", ".."} & {container, *blob.split("/")}:
        raise UsageError(f"--context: {root}{path} has a part . or .., which no URL of a blob can have")
    query = parse_qsl(parts.query, keep_blank_values=True)
    named = {key.lower(): value for key, value in query if key.lower() in NOT_SAS}
    sas = urlencode([(key, value) for key, value in query if key.lower() not in NOT_SAS])
    return BlobAddress(
        account_url=root,
        account=environment.get("AZURE_STORAGE_ACCOUNT") or account,
        container=container,
        blob=blob or DEFAULT_OBJECT,
        snapshot=named.get("snapshot", ""),
        version=named.get("versionid", ""),
        sas=sas,
    )


class AzureSource:
    """The revision of an archive is its version id where the account keeps versions, else its ETag."""

    def fetch(self, location: str, into: Path, settings: FetchSettings) -> Fetched:
        address = parse(location, settings.environment)
        if not address.account_url.startswith("https://") and not settings.allow_http:
            raise UsageError(
                f"--context {address.shown} is not https: it can be read and changed on its way",
                "pass --context-allow-http to allow it",
            )
        store = Store(address, settings)
        name = address.shown
        if address.blob.endswith("/"):
            return fetch_tree(store.listing(address.blob, name), address.blob, store.open_listed, name, into, settings)
        etag, version = store.etag_and_version()
        revision, kind = (version, "version") if version else (etag.strip('"'), "etag")
        open_at = partial(store.open_at, address.blob, name, etag)
        return fetch_archive(open_at, name, revision, kind, into, settings)


class Store:
    """One container."""

    def __init__(self, address: BlobAddress, settings: FetchSettings) -> None:
        self._settings = settings
        self._address = address
        self._credential = credential_for(address, settings.environment)
        self._connections = connections_to(address.account_url, settings.environment)
        root = urlsplit(address.account_url)
        self._origin = f"{root.scheme}://{root.netloc}"
        self._container = f"{root.path}/{quote(address.container)}"
        which = {"snapshot": address.snapshot, "versionid": address.version}
        self._state = {name: value for name, value in which.items() if value}
        settings.log("debug", f"{address.shown}: {self._credential.used}")

    def etag_and_version(self) -> tuple[str, str]:
        """Of the blob, as they are now; the version is "" where the account keeps none."""
        name, key = self._address.shown, self._address.blob
        headers = answered(lambda: self._asked("HEAD", key, self._state, {}, name).headers, name, self._settings)
        if not headers.get("ETag"):
            raise ContextError(f"{name}: the store does not say its ETag", "is this an endpoint of Blob Storage?")
        return headers["ETag"], headers.get("x-ms-version-id", "")

    def listing(self, prefix: str, name: str) -> Iterator[StoredObject]:
        """Every blob whose name begins with `prefix`."""
        marker, query = "", {"restype": "container", "comp": "list", "prefix": prefix}
        while True:
            blobs, following = answered(partial(self._page, query, name), name, self._settings)
            yield from blobs
            if not following:
                return
            if following == marker:
                raise ContextError(f"{name}: the store lists the same page again and again")
            marker = query["marker"] = following

    def _page(self, query: Mapping[str, str], name: str) -> tuple[list[StoredObject], str]:
        response = self._asked("GET", "", query, {}, name)
        try:
            return read_page(raw_chunks(response))
        except NotAListing as error:
            raise ContextError(
                f"{name}: the store answers with no list of blobs: {error}", "is this an endpoint of Blob Storage?"
            ) from error
        finally:
            response.close()

    def open_listed(self, stored: StoredObject, offset: int) -> Body:
        name = f"{self._address.account_url}/{self._address.container}/{quote(stored.key)}"
        return self.open_at(stored.key, name, stored.version, offset)

    def open_at(self, key: str, name: str, etag: str, offset: int) -> Body:
        """Raises Broken or ContextError."""
        headers = {"If-Match": etag if etag.startswith('"') else f'"{etag}"'}
        if offset:
            headers["Range"] = f"bytes={offset}-"
        response = self._asked("GET", key, self._state, headers, name)
        if response.headers.get("ETag", "").strip('"') != etag.strip('"'):
            response.close()
            raise self._refused(412, "", name)
        body = body_of(response)
        return Body(body.chunks, body.offset, body.total, etag, body.close)

    def _asked(
        self, method: str, key: str, query: Mapping[str, str], headers: Mapping[str, str], name: str
    ) -> urllib3.BaseHTTPResponse:
        """The answer, a success; `key` "" is the container. Raises Broken or ContextError."""
        path = f"{self._container}/{quote(key)}" if key else self._container
        sent = {
            "Accept-Encoding": "identity",
            "User-Agent": "limpet",
            "x-ms-date": email.utils.formatdate(usegmt=True),
            "x-ms-version": VERSION,
            **headers,
        }
        in_url = "&".join(filter(None, (urlencode(query, quote_via=quote, safe=""), self._credential.sas)))
        try:
            with asking(name, self._credential.used):
                response = self._connections.urlopen(
                    method,
                    f"{self._origin}{path}?{in_url}",
                    headers=sent | self._credential.headers(method, path, query, sent),
                    preload_content=method != "GET",
                    decode_content=False,
                    retries=False,
                    redirect=False,  # a signature or token is meant for this host
                )
        except Refused as error:
            raise ContextError(f"{name}: {error}; {self._credential.used}", error.hint) from error
        if response.status in (200, 206):
            return response
        response.close()
        raise broken_by(response) or self._refused(response.status, response.reason or "", name)

    def _refused(self, status: int, reason: str, name: str) -> ContextError:
        used = self._credential.used
        if status == 412:
            return ContextError(f"{name} changed while it was fetched", "start the build again", transient=True)
        ways = "AZURE_STORAGE_ACCESS_KEY, a SAS in the URL, AZURE_STORAGE_CONNECTION_STRING or a workload identity"
        if status == 404:
            # To strangers a private container does not exist.
            hint = (
                f"check the address; for a private container set {ways}"
                if isinstance(self._credential, Anonymous)
                else "check the address"
            )
            return ContextError(f"{name}: no such blob or container; {used}", hint)
        if status in (401, 403, 409):
            hint = f"give it the role Storage Blob Data Reader, or set {ways}"
            return ContextError(f"{name}: {status} {reason}; {used}", hint)
        return ContextError(f"{name}: the store answers {status} {reason}; {used}")
