"""`gs://BUCKET/OBJECT[#GENERATION]` and `gs://BUCKET/PREFIX/`, by the JSON API of Cloud Storage."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote, urlencode

import urllib3

from builder.errors import ContextError, UsageError
from context_sources.gcs_credentials import credential_for, endpoint_of
from context_sources.gcs_listing import FIELDS, PAGE, NotTheApi, read_generation, read_page
from context_sources.http_body import body_of, broken_by, raw_chunks
from context_sources.http_connections import asking, connections_to
from context_sources.objects import DEFAULT_OBJECT, StoredObject, fetch_archive, fetch_tree
from context_sources.retry import Body, Refused, answered
from context_sources.source import Fetched, FetchSettings

Result = TypeVar("Result")


class GcsSource:
    """The revision of an archive is its generation."""

    def fetch(self, location: str, into: Path, settings: FetchSettings) -> Fetched:
        bucket, key, generation = parse(location)
        store = Store(bucket, settings)
        name = f"gs://{bucket}/{key}"
        if key.endswith("/"):
            return fetch_tree(store.listing(key, name), key, store.open_listed, name, into, settings)
        found = store.generation(key, generation, name)
        return fetch_archive(partial(store.open_at, key, name, found), name, found, "generation", into, settings)


def parse(location: str) -> tuple[str, str, str]:
    """Bucket, object and generation. Without an object it is kaniko's context.tar.gz."""
    bucket, _, key = location.partition("://")[2].partition("/")
    if not bucket:
        raise UsageError(f"--context {location} names no bucket", "use gs://BUCKET/OBJECT, or gs://BUCKET/PREFIX/")
    try:
        location.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"--context {location!a} is not UTF-8, as names of buckets and objects are") from error
    head, separator, generation = key.rpartition("#")
    if separator and generation.isdigit():
        return bucket, head or DEFAULT_OBJECT, generation
    return bucket, key or DEFAULT_OBJECT, ""


class Store:
    """One bucket."""

    def __init__(self, bucket: str, settings: FetchSettings) -> None:
        self._settings = settings
        self._bucket = bucket
        self._endpoint = endpoint_of(settings.environment)
        self._credential = credential_for(settings.environment)
        try:
            self._connections = connections_to(self._endpoint, settings.environment)
        except ValueError as error:
            raise UsageError(
                f"STORAGE_EMULATOR_HOST is no URL: {error}", "set HOST:PORT, http:// or https://"
            ) from error
        settings.log("debug", f"gs://{bucket}: {self._credential.used}")

    def generation(self, key: str, wanted: str, name: str) -> str:
        """The generation to fetch."""
        query = {"fields": "generation", **({"generation": wanted} if wanted else {})}
        return self._read(self._objects(key), query, read_generation, name)

    def listing(self, prefix: str, name: str) -> Iterator[StoredObject]:
        """Every object whose name begins with `prefix`, a page in memory at a time."""
        token, query = "", {"prefix": prefix, "fields": FIELDS, "maxResults": str(PAGE)}
        while True:
            objects, following = self._read(self._objects(), query, read_page, name)
            yield from objects
            if not following:
                return
            if following == token:
                raise ContextError(f"{name}: the store lists the same page again and again")
            query["pageToken"] = token = following

    def open_listed(self, stored: StoredObject, offset: int) -> Body:
        return self.open_at(stored.key, f"gs://{self._bucket}/{stored.key}", stored.version, offset)

    def open_at(self, key: str, name: str, generation: str, offset: int) -> Body:
        """Raises Broken or ContextError."""
        # With gzip accepted, the store sends what is stored: it would else unpack objects marked as gzip.
        headers = {"Accept-Encoding": "gzip", **({"Range": f"bytes={offset}-"} if offset else {})}
        query = {"alt": "media", "generation": generation}
        body = body_of(self._asked(f"/download{self._objects(key)}", query, headers, name))
        return Body(body.chunks, body.offset, body.total, generation, body.close)

    def _objects(self, key: str = "") -> str:
        """The path of one object, or of all."""
        path = f"/storage/v1/b/{quote(self._bucket, safe='')}/o"
        return f"{path}/{quote(key, safe='')}" if key else path

    def _read(
        self, path: str, query: Mapping[str, str], read: Callable[[Iterable[bytes]], Result], name: str
    ) -> Result:
        """What `read` makes of the answer, asked for several times if need be. Raises ContextError."""

        def ask() -> Result:
            response = self._asked(path, query, {"Accept-Encoding": "identity"}, name)
            try:
                return read(raw_chunks(response))
            except NotTheApi as error:
                raise ContextError(
                    f"{name}: the store does not answer as Cloud Storage does: {error}",
                    "does STORAGE_EMULATOR_HOST name something else?",
                ) from error
            finally:
                response.close()

        return answered(ask, name, self._settings)

    def _asked(
        self, path: str, query: Mapping[str, str], headers: Mapping[str, str], name: str
    ) -> urllib3.BaseHTTPResponse:
        """The answer, a success. A token that is refused is renewed once. Raises Broken or ContextError."""
        url = f"{self._endpoint}{path}?{urlencode(query, quote_via=quote, safe='')}"
        try:
            authorization = self._credential.headers()
            response = self._sent(url, {**headers, **authorization}, name)
            if response.status == 401:
                renewed = self._credential.renewed(authorization)
                if renewed != authorization:
                    response.close()
                    response = self._sent(url, {**headers, **renewed}, name)
        except Refused as error:
            raise ContextError(f"{name}: {error}; {self._credential.used}", error.hint) from error
        if response.status in (200, 206):
            return response
        response.close()
        raise broken_by(response) or self._refused(response.status, response.reason or "", name)

    def _sent(self, url: str, headers: Mapping[str, str], name: str) -> urllib3.BaseHTTPResponse:
        with asking(name, self._credential.used):
            return self._connections.urlopen(
                "GET",
                url,
                headers={"User-Agent": "limpet", **headers},
                preload_content=False,
                decode_content=False,
                retries=False,
                redirect=False,  # a token is meant for this host
            )

    def _refused(self, status: int, reason: str, name: str) -> ContextError:
        used = self._credential.used
        if status == 404:
            return ContextError(f"{name}: no such object or bucket; {used}", "check the address")
        if status in (401, 403):
            return ContextError(
                f"{name}: {status} {reason}; {used}",
                "allow it storage.objects.get (and storage.objects.list for a prefix), or name another key file by "
                "GOOGLE_APPLICATION_CREDENTIALS",
            )
        return ContextError(f"{name}: the store answers {status} {reason}; {used}")
