"""GET requests for many objects of one bucket, without what botocore's client does for each: 0.4 instead of 1.6 ms.

The client finds out how the bucket is addressed and in which region it lies. Here its listing request is looked at, and
requests for objects are signed and sent in the same way, by botocore's own signer and connections.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import urllib3
from botocore import auth, exceptions, httpsession
from botocore.awsrequest import AWSRequest

from context_sources.aws import CONNECT_TIMEOUT, READ_TIMEOUT, Access
from context_sources.http_body import CHUNK, CONTENT_RANGE
from context_sources.objects import IN_PARALLEL
from context_sources.retry import Body, Broken

NETWORK = (
    exceptions.HTTPClientError,
    exceptions.IncompleteReadError,
    exceptions.ResponseStreamingError,
    urllib3.exceptions.HTTPError,
    OSError,
)
# The scope says for which region the request was signed; directory buckets ("s3express") are signed in another way.
SIGNED = re.compile(r"AWS4-HMAC-SHA256 Credential=[^ ,]+/\d{8}/(?P<region>[^/ ,]+)/s3/aws4_request,.*")


@dataclass(frozen=True, slots=True)
class Manner:
    """How requests to the bucket are made: the URL before an object's key, and the region, "" for no signature."""

    url: str
    region: str
    user_agent: str


class ObjectRequests:
    """For any number of threads, once the client has listed the bucket."""

    def __init__(self, access: Access) -> None:
        self._credentials = access.credentials
        self._manner: Manner | None = None
        options: dict[str, Any] = {"verify": access.verify, "timeout": (CONNECT_TIMEOUT, READ_TIMEOUT)}
        self._session = httpsession.URLLib3Session(proxies=access.proxies, max_pool_connections=IN_PARALLEL, **options)
        access.client.meta.events.register("before-send.s3.ListObjectsV2", self._seen)

    def _seen(self, request: Any, **_: Any) -> None:
        """Called with each request that lists the bucket: the last is the one that was answered."""
        headers = {name.lower(): text(value) for name, value in request.headers.items()}
        signature = SIGNED.fullmatch(headers.get("authorization", ""))
        self._manner = None
        if signature is None and ("authorization" in headers or self._credentials is not None):
            return
        url = request.url.partition("?")[0].rstrip("/")
        self._manner = Manner(url, signature["region"] if signature else "", headers.get("user-agent", "limpet"))

    def open_at(self, key: str, etag: str, offset: int) -> Body | None:
        """The object from `offset` on; None when it is not given: the client has to say why. Raises Broken."""
        if self._manner is None:
            return None
        url = f"{self._manner.url}/{quote(key, safe='/~')}"
        request = AWSRequest("GET", url, {"If-Match": etag, "User-Agent": self._manner.user_agent}, stream_output=True)
        if offset:
            request.headers["Range"] = f"bytes={offset}-"
        try:
            if self._manner.region:
                frozen = self._credentials.get_frozen_credentials()  # asks for new ones when these are about to expire
                auth.S3SigV4Auth(frozen, "s3", self._manner.region).add_auth(request)
            answer = self._session.send(request.prepare())
        except NETWORK as error:
            raise Broken(f"the connection broke ({type(error).__name__})") from error
        except (exceptions.BotoCoreError, exceptions.ClientError):
            return None
        if answer.status_code not in (200, 206):
            answer.raw.drain_conn()
            answer.raw.close()
            return None
        total, start = int(answer.headers.get("Content-Length", "0")), 0
        if match := CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", "")):
            start, total = int(match[1]), int(match[2])
        return Body(chunks_of(answer.raw), start, total, answer.headers.get("ETag", ""), answer.raw.close)


def text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value


def chunks_of(stream: Any) -> Iterator[bytes]:
    """The body as it comes; connections of bodies that were read to their end are used again. Raises Broken."""
    try:
        while chunk := stream.read(CHUNK):
            yield chunk
    except NETWORK as error:
        raise Broken(f"the connection broke ({type(error).__name__})") from error
