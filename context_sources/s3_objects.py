"""GET requests for many objects of one bucket, without what botocore's client does for each: 0.3 instead of 1.6 ms.

The client finds out how the bucket is addressed and in which region it lies. Here its listing request is looked at, and
requests for objects are sent to the same place, signed for the same region.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

import urllib3
from botocore import exceptions

from context_sources.aws import Access
from context_sources.http_body import CHUNK, body_of
from context_sources.http_connections import connections_to
from context_sources.retry import Body, Broken
from context_sources.s3_signing import Signer

NETWORK = (
    exceptions.HTTPClientError,
    exceptions.EndpointConnectionError,
    exceptions.ConnectTimeoutError,
    exceptions.ProxyConnectionError,
    exceptions.IncompleteReadError,
    exceptions.ResponseStreamingError,
    urllib3.exceptions.HTTPError,
    OSError,
)
ONCE = urllib3.Retry(False)  # no second attempt; made from False for each request it would take 10 µs
# The scope says for which region the request was signed; directory buckets ("s3express") are signed in another way.
SIGNED = re.compile(r"AWS4-HMAC-SHA256 Credential=[^ ,]+/\d{8}/(?P<region>[^/ ,]+)/s3/aws4_request,.*")


@dataclass(frozen=True, slots=True)
class Manner:
    """How requests to the bucket are made: `url` is what comes before the slash and an object's key.

    `path` is its path, which is signed; `target` is what `send` takes of it. Without `signer` requests are not signed.
    """

    url: str
    path: str
    target: str
    send: Callable[..., urllib3.BaseHTTPResponse]
    signer: Signer | None
    user_agent: str


class ObjectRequests:
    """For any number of threads, once the client has listed the bucket."""

    def __init__(self, access: Access) -> None:
        self._credentials = access.credentials
        self._environment = access.environment
        self._manner: Manner | None = None
        access.client.meta.events.register("before-send.s3.ListObjectsV2", self._seen)

    def _seen(self, request: Any, **_: Any) -> None:
        """Called with each request that lists the bucket: the last is the one that was answered."""
        headers = {name.lower(): text(value) for name, value in request.headers.items()}
        signature = SIGNED.fullmatch(headers.get("authorization", ""))
        url = request.url.partition("?")[0].rstrip("/")
        signer = Signer(host_of(url), signature["region"]) if signature else None
        if signer is None and ("authorization" in headers or self._credentials is not None):
            self._manner = None
            return
        if self._manner is not None and (self._manner.url, self._manner.signer) == (url, signer):
            return
        connections = connections_to(url, self._environment)
        # A proxy that is no tunnel is told the whole URL.
        direct = not isinstance(connections, urllib3.ProxyManager)
        send = connections.connection_from_url(url).urlopen if direct else connections.urlopen
        path = urlsplit(url).path
        agent = headers.get("user-agent", "limpet")
        self._manner = Manner(url, path, path if direct else url, send, signer, agent)

    def open_at(self, key: str, etag: str, offset: int) -> Body | None:
        """The object from `offset` on; None when it is not given: the client has to say why. Raises Broken."""
        manner = self._manner
        if manner is None:
            return None
        quoted = quote(key, safe="/~")
        headers = {"if-match": etag}
        if offset:
            headers["range"] = f"bytes={offset}-"
        try:
            if manner.signer is not None:
                frozen = self._credentials.get_frozen_credentials()  # asks for new ones when these are about to expire
                headers = manner.signer.headers(f"{manner.path}/{quoted}", headers, frozen)
            answer = manner.send(
                "GET",
                f"{manner.target}/{quoted}",
                headers={"accept-encoding": "identity", "user-agent": manner.user_agent, **headers},
                preload_content=False,
                decode_content=False,
                retries=ONCE,
                redirect=False,  # a signature is meant for this host
            )
        except NETWORK as error:
            raise Broken(f"the connection broke ({type(error).__name__})") from error
        except (exceptions.BotoCoreError, exceptions.ClientError):
            return None
        if answer.status not in (200, 206):
            answer.drain_conn()
            answer.close()
            return None
        return body_of(answer)


def host_of(url: str) -> str:
    """The Host header that botocore signs: without the scheme's own port."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
    own = {"http": 80, "https": 443}.get(parts.scheme)
    return host if parts.port in (None, own) else f"{host}:{parts.port}"


def text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value


def chunks_of(stream: Any) -> Iterator[bytes]:
    """The body as it comes; connections of bodies that were read to their end are used again. Raises Broken."""
    try:
        while chunk := stream.read(CHUNK):
            yield chunk
    except NETWORK as error:
        raise Broken(f"the connection broke ({type(error).__name__})") from error
