"""URLs as they may be shown: without the user and password that they carry."""

from __future__ import annotations

import re

_AUTHORITY = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)([^/?#]*)(.*)", re.DOTALL)  # RFC 3986, section 3
_PORT = re.compile(r"(\[.*\]|[^:]*)(:[0-9]*)?")


def without_user(url: str) -> str:
    """`url` without user and password; all else of it is as it was, and so is a text that is no URL.

    A password with a `/`, `?` or `#` that is not percent-encoded ends the authority too early. What then stands where a
    port belongs is no number: such a URL loses everything before its last `@`. Raises nothing.
    """
    parts = _AUTHORITY.fullmatch(url)
    if parts is None:
        return url
    scheme, authority, rest = parts.groups()
    host = authority.rpartition("@")[2]
    if not _PORT.fullmatch(host) and "@" in rest:
        host, rest = "", rest.rpartition("@")[2]
    return scheme + host + rest


def redacted(url: str) -> str:
    """`url` without user and password, without the values of its query, which may be a signature, and its fragment."""
    path, question, _ = without_user(url).partition("#")[0].partition("?")
    return f"{path}?..." if question else path
