"""`gs://BUCKET/OBJECT[#GENERATION]` and `gs://BUCKET/PREFIX/`, by google-cloud-storage."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import requests
from google.api_core import exceptions as api
from google.auth import credentials as google_credentials
from google.auth import default as default_credentials
from google.auth import exceptions as auth
from google.auth import load_credentials_from_file
from google.auth.transport.requests import AuthorizedSession
from google.cloud import storage

from builder.errors import ContextError, UsageError
from context_sources.http_body import TIMEOUT, TRANSIENT_STATUS, body_of, broken_by
from context_sources.http_environment import proxies_for
from context_sources.http_session import configure
from context_sources.objects import DEFAULT_OBJECT, StoredObject, fetch_archive, fetch_tree
from context_sources.retry import Body, Broken, answered
from context_sources.source import Fetched, FetchSettings

SCOPE = "https://www.googleapis.com/auth/devstorage.read_only"
LISTED = "items(name,size,updated,generation),nextPageToken"  # of 1.5 KB that the store says of an object
ENDPOINT = "https://storage.googleapis.com"
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
    head, separator, generation = key.rpartition("#")
    if separator and generation.isdigit():
        return bucket, head or DEFAULT_OBJECT, generation
    return bucket, key or DEFAULT_OBJECT, ""


def endpoint_of(environment: Mapping[str, str]) -> str:
    """Where the API is: STORAGE_EMULATOR_HOST as in Google's own clients, else Google."""
    stated = environment.get("STORAGE_EMULATOR_HOST", "").rstrip("/")
    if stated and "://" not in stated:
        stated = f"http://{stated}"
    return stated or ENDPOINT


def credentials_for(environment: Mapping[str, str]) -> tuple[google_credentials.Credentials, str]:
    """Application default credentials, and what they are, in words; anonymous when there are none."""
    stated = environment.get("GOOGLE_APPLICATION_CREDENTIALS", "")
    gcloud = environment.get("CLOUDSDK_CONFIG") or f"{environment.get('HOME', '')}/.config/gcloud"
    known = Path(gcloud, "application_default_credentials.json")
    try:
        if stated:
            found, _ = load_credentials_from_file(stated, scopes=[SCOPE])  # type: ignore[no-untyped-call]
            return found, f"the credential was {stated} (GOOGLE_APPLICATION_CREDENTIALS)"
        if known.is_file():
            found, _ = load_credentials_from_file(str(known), scopes=[SCOPE])  # type: ignore[no-untyped-call]
            return found, f"the credential was {known}"
    except (auth.GoogleAuthError, OSError) as error:
        raise ContextError(
            f"Google credentials {stated or known}: {error}", "mount the service account's key file there"
        ) from error
    anonymous = google_credentials.AnonymousCredentials()  # type: ignore[no-untyped-call]
    if endpoint_of(environment) != ENDPOINT:
        return anonymous, "no credential was sent to STORAGE_EMULATOR_HOST"
    try:
        found, _ = default_credentials(scopes=[SCOPE])
        return found, "the credential was the pod's service account (metadata server)"
    except auth.DefaultCredentialsError:
        return anonymous, "no credential was found, requests are anonymous"


def object_of(blob: storage.Blob) -> StoredObject:
    mtime = int(blob.updated.timestamp()) * 10**9 if blob.updated else 0
    return StoredObject(blob.name, blob.size or 0, mtime, str(blob.generation))


class Store:
    """One bucket. Listings come from the library; bodies from the JSON API itself, so that one request streams."""

    def __init__(self, bucket: str, settings: FetchSettings) -> None:
        self._settings = settings
        self._endpoint = endpoint_of(settings.environment)
        credentials, self._used = credentials_for(settings.environment)
        self._session = AuthorizedSession(credentials)  # type: ignore[no-untyped-call]
        configure(self._session, settings.environment)
        self._session.proxies = dict(proxies_for(self._endpoint, settings.environment))
        client = storage.Client(
            project="limpet",
            credentials=credentials,
            _http=self._session,
            client_options={"api_endpoint": self._endpoint},
        )
        self._bucket = client.bucket(bucket)
        settings.log("debug", f"gs://{bucket}: {self._used}")

    def generation(self, key: str, wanted: str, name: str) -> str:
        """The generation to fetch."""
        number = int(wanted) if wanted else None
        blob = self._answered(name, lambda: self._bucket.get_blob(key, generation=number, timeout=TIMEOUT, retry=None))
        if blob is None:
            raise ContextError(f"{name}: no such object; {self._used}", "check the address")
        return str(blob.generation)

    def listing(self, prefix: str, name: str) -> Iterator[StoredObject]:
        """Every object whose name begins with `prefix`."""

        def ask() -> list[StoredObject]:
            blobs = self._bucket.list_blobs(prefix=prefix, fields=LISTED, timeout=TIMEOUT, retry=None)
            return [object_of(blob) for blob in blobs]

        yield from self._answered(name, ask)

    def open_listed(self, stored: StoredObject, offset: int) -> Body:
        return self.open_at(stored.key, f"gs://{self._bucket.name}/{stored.key}", stored.version, offset)

    def open_at(self, key: str, name: str, generation: str, offset: int) -> Body:
        """Raises Broken or ContextError."""
        url = f"{self._endpoint}/download/storage/v1/b/{quote(self._bucket.name)}/o/{quote(key, safe='')}"
        # With gzip accepted, the store sends what is stored: it would else unpack objects marked as gzip.
        headers = {"Accept-Encoding": "gzip", **({"Range": f"bytes={offset}-"} if offset else {})}

        def ask() -> requests.Response:
            parameters = {"alt": "media", "generation": generation}
            return self._session.get(url, params=parameters, headers=headers, stream=True, timeout=TIMEOUT)

        response = self._asked(name, ask)
        if response.status_code in (200, 206):
            body = body_of(response.raw)
            return Body(body.chunks, body.offset, body.total, generation, body.close)
        response.close()
        raise broken_by(response.raw) or self._refused(response.status_code, response.reason, name)

    def _answered(self, name: str, call: Callable[[], Result]) -> Result:
        return answered(lambda: self._asked(name, call), name, self._settings)

    def _asked(self, name: str, call: Callable[[], Result]) -> Result:
        try:
            return call()
        except api.GoogleAPICallError as error:
            status = int(error.code or 0)
            if status in TRANSIENT_STATUS:
                raise Broken(f"{status} {type(error).__name__}") from error
            raise self._refused(status, type(error).__name__, name) from error
        except auth.TransportError as error:
            raise Broken(f"the token's server did not answer ({type(error).__name__})") from error
        except auth.GoogleAuthError as error:
            raise ContextError(
                f"{name}: Google gives no token; {self._used}", "the key may be revoked or the clock may be wrong"
            ) from error
        except (requests.RequestException, OSError) as error:
            raise Broken(f"the connection broke ({type(error).__name__})") from error

    def _refused(self, status: int, reason: str, name: str) -> ContextError:
        if status == 404:
            return ContextError(f"{name}: no such object or bucket; {self._used}", "check the address")
        if status in (401, 403):
            return ContextError(
                f"{name}: {status} {reason}; {self._used}",
                "allow it storage.objects.get (and storage.objects.list for a prefix), or name another key file by "
                "GOOGLE_APPLICATION_CREDENTIALS",
            )
        return ContextError(f"{name}: the store answers {status} {reason}; {self._used}")
