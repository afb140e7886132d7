"""An HTTP response as a body that can be resumed: one of urllib3, or the `raw` of one of requests."""

from __future__ import annotations

import re
from collections.abc import Iterator

import urllib3

from context_sources.retry import Body, Broken

CHUNK = 1 << 19  # of a larger read that breaks off, more would have to be asked for again
TIMEOUT = (30.0, 60.0)  # seconds to connect, and between two pieces of an answer
TRANSIENT_STATUS = frozenset((408, 425, 429, 500, 502, 503, 504))
CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


def broken_by(response: urllib3.BaseHTTPResponse) -> Broken | None:
    """What to raise for an answer that may be another one later."""
    if response.status not in TRANSIENT_STATUS:
        return None
    asked = response.headers.get("Retry-After", "")
    return Broken(f"{response.status} {response.reason}", min(float(asked), 120.0) if asked.isdigit() else 0.0)


def body_of(response: urllib3.BaseHTTPResponse) -> Body:
    """The body of a 200 or 206. The version is the strong ETag, else the time of the last change."""
    length = response.headers.get("Content-Length", "")
    offset, total = 0, int(length) if length.isdigit() else 0
    if response.status == 206:
        match = CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if match is None:
            raise Broken("a part came without saying which")
        offset, total = int(match[1]), int(match[2]) if match[2].isdigit() else 0
    tag = response.headers.get("ETag", "")
    version = tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified", "")
    return Body(raw_chunks(response), offset, total, version, response.close)


def raw_chunks(response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    """The bytes as they come over the wire, content encoding included. Raises Broken."""
    try:
        while chunk := response.read(CHUNK, decode_content=False):
            yield chunk
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise Broken(f"the connection broke ({type(error).__name__})") from error
