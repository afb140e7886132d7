"""`https://ACCOUNT.blob.core.windows.net/CONTAINER/BLOB` or `.../PREFIX/`, by azure-storage-blob."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

import requests
from azure.core import MatchConditions
from azure.core import exceptions as core
from azure.core.pipeline.transport import RequestsTransport
from azure.storage.blob import BlobProperties, BlobServiceClient

from builder.errors import ContextError, UsageError
from context_sources.azure_address import connection_string_parts, custom_endpoint
from context_sources.http_body import TIMEOUT, TRANSIENT_STATUS
from context_sources.http_session import configure, proxies_for
from context_sources.objects import DEFAULT_OBJECT, StoredObject, fetch_archive, fetch_tree
from context_sources.retry import Body, Broken, answered
from context_sources.source import Fetched, FetchSettings

REQUEST_SIZE = 16 << 20  # the library reads one answer into memory before it gives any of it
PIECE = 1 << 20
ENTRA_ERROR = re.compile(r"AADSTS\d+: [^\r\n]{0,300}")
NOT_SAS = ("snapshot", "versionid")
Result = TypeVar("Result")
logging.getLogger("azure").addHandler(logging.NullHandler())  # else its warnings go to standard error by themselves


@dataclass(frozen=True, slots=True)
class BlobAddress:
    """`account_url` is scheme, host and, for custom endpoints, the account's path; `sas` is a signed query or ""."""

    account_url: str
    account: str
    container: str
    blob: str
    snapshot: str = ""
    version: str = ""
    sas: str = field(default="", repr=False)

    @property
    def shown(self) -> str:
        return f"{self.account_url}/{self.container}/{self.blob}"


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
        properties = store.properties()
        etag, version = properties.etag, getattr(properties, "version_id", None) or ""
        revision, kind = (version, "version") if version else (etag.strip('"'), "etag")
        open_at = partial(store.open_at, address.blob, name, etag)
        return fetch_archive(open_at, name, revision, kind, into, settings)


def credential_for(address: BlobAddress, environment: Mapping[str, str]) -> tuple[Any, str]:
    """A credential of the library's, and what it is, in words. The most explicit one is taken."""
    if address.sas:
        return address.sas, "the credential was the SAS in the URL"
    parts = connection_string_parts(environment.get("AZURE_STORAGE_CONNECTION_STRING", ""))
    for key, name in (
        (environment.get("AZURE_STORAGE_ACCESS_KEY", ""), "AZURE_STORAGE_ACCESS_KEY"),
        (environment.get("AZURE_STORAGE_KEY", ""), "AZURE_STORAGE_KEY"),
        (parts.get("AccountKey", ""), "the key in AZURE_STORAGE_CONNECTION_STRING"),
    ):
        if key:
            account = parts.get("AccountName", address.account) if name.startswith("the key") else address.account
            return {"account_name": account, "account_key": key.strip()}, f"the credential was {name}"
    for token, name in (
        (environment.get("AZURE_STORAGE_SAS_TOKEN", ""), "AZURE_STORAGE_SAS_TOKEN"),
        (parts.get("SharedAccessSignature", ""), "the SAS in AZURE_STORAGE_CONNECTION_STRING"),
    ):
        if token:
            return token.strip().lstrip("?"), f"the credential was {name}"
    from context_sources.azure_identity import identity_for

    return identity_for(address.account_url, environment)


def object_of(blob: BlobProperties) -> StoredObject:
    return StoredObject(blob.name, blob.size, int(blob.last_modified.timestamp()) * 10**9, blob.etag)


class Store:
    """One container."""

    def __init__(self, address: BlobAddress, settings: FetchSettings) -> None:
        self._settings = settings
        self._address = address
        credential, self._used = credential_for(address, settings.environment)
        self._anonymous = credential is None
        session = requests.Session()  # the library's own keeps ten connections
        configure(session, settings.environment)
        service = BlobServiceClient(
            address.account_url,
            credential=credential,
            max_single_get_size=REQUEST_SIZE,
            max_chunk_get_size=REQUEST_SIZE,
            retry_total=0,  # Limpet tries again itself, from where the transfer broke off
            proxies=proxies_for(address.account_url, settings.environment),
            transport=RequestsTransport(session=session, connection_timeout=TIMEOUT[0], read_timeout=TIMEOUT[1]),
        )
        self._container = service.get_container_client(address.container)
        settings.log("debug", f"{address.shown}: {self._used}")

    def _blob(self, key: str) -> Any:
        return self._container.get_blob_client(
            key, snapshot=self._address.snapshot or None, version_id=self._address.version or None
        )

    def properties(self) -> Any:
        name, blob = self._address.shown, self._blob(self._address.blob)
        return answered(lambda: self._asked(name, blob.get_blob_properties), name, self._settings)

    def listing(self, prefix: str, name: str) -> Iterator[StoredObject]:
        """Every blob whose name begins with `prefix`."""

        def ask() -> list[StoredObject]:
            return self._asked(
                name, lambda: [object_of(blob) for blob in self._container.list_blobs(name_starts_with=prefix)]
            )

        yield from answered(ask, name, self._settings)

    def open_listed(self, stored: StoredObject, offset: int) -> Body:
        name = f"{self._address.account_url}/{self._address.container}/{quote(stored.key)}"
        return self.open_at(stored.key, name, stored.version, offset)

    def open_at(self, key: str, name: str, etag: str, offset: int) -> Body:
        """Raises Broken or ContextError."""
        condition = {
            "etag": etag if etag.startswith('"') else f'"{etag}"',
            "match_condition": MatchConditions.IfNotModified,
        }
        blob = self._blob(key)
        download = self._asked(name, lambda: blob.download_blob(offset=offset or None, max_concurrency=1, **condition))
        return Body(self._pieces(download.chunks(), name), offset, offset + download.size, etag, lambda: None)

    def _pieces(self, answers: Iterator[bytes], name: str) -> Iterator[bytes]:
        while (answer := self._asked(name, lambda: next(answers, None))) is not None:
            for at in range(0, len(answer), PIECE):
                yield answer[at : at + PIECE]

    def _asked(self, name: str, call: Callable[[], Result]) -> Result:
        try:
            return call()
        except (core.ServiceRequestError, core.ServiceResponseError, core.IncompleteReadError, OSError) as error:
            raise Broken(f"the connection broke ({type(error).__name__})") from error
        except core.ClientAuthenticationError as error:
            if said := ENTRA_ERROR.search(error.message or ""):
                raise ContextError(
                    f"{name}: Microsoft Entra ID gives no token: {said[0]}; {self._used}",
                    "check AZURE_TENANT_ID and AZURE_CLIENT_ID, and what the application trusts: its federated "
                    "credentials or its secret",
                ) from error
            if error.response is None:
                raise ContextError(
                    f"{name}: no request can be made with the credential; {self._used}",
                    "check that it is complete: a key is base64, a client secret belongs to its tenant",
                ) from error
            raise self._refused(error.status_code or 401, error.reason or "", name) from error
        except core.HttpResponseError as error:
            status = error.status_code or 0
            if status in TRANSIENT_STATUS:
                raise Broken(f"{status} {error.reason}") from error
            raise self._refused(status, error.reason or "", name) from error
        except core.AzureError as error:
            raise ContextError(f"{name}: {type(error).__name__}; {self._used}") from error
        except ValueError as error:  # a key that is not base64, for one
            raise ContextError(f"{name}: the library refuses its settings; {self._used}", "check the key") from error

    def _refused(self, status: int, reason: str, name: str) -> ContextError:
        if status == 412:
            return ContextError(f"{name} changed while it was fetched", "start the build again", transient=True)
        ways = "AZURE_STORAGE_ACCESS_KEY, a SAS in the URL, AZURE_STORAGE_CONNECTION_STRING or a workload identity"
        if status == 404:
            # To strangers a private container does not exist.
            hint = f"check the address; for a private container set {ways}" if self._anonymous else "check the address"
            return ContextError(f"{name}: no such blob or container; {self._used}", hint)
        if status in (401, 403, 409):
            hint = f"give it the role Storage Blob Data Reader, or set {ways}"
            return ContextError(f"{name}: {status} {reason}; {self._used}", hint)
        return ContextError(f"{name}: the store answers {status} {reason}; {self._used}")
