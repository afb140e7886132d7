"""Connections of urllib3 that read the heads of ordinary answers by themselves, in a tenth of http.client's time.

http.client reads them as those of a mail, and urllib3 looks for what is wrong in that: a third of what a request for a
small object costs.
"""

from __future__ import annotations

import http.client
import io
import re
from typing import Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection

ORDINARY = re.compile(
    rb"HTTP/1\.1 (?P<status>200|206) (?P<reason>[ -~]*)\r\n"
    rb"(?P<fields>(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\r\n\0]*\r\n)+)\r\n"
)


class Head(http.client.HTTPMessage):
    """Fields of a head, in their order. It has no payload, nor anything else of a mail."""

    def __init__(self, fields: list[tuple[str, str]]) -> None:
        super().__init__()
        self._fields = fields

    def get_payload(self, i: Any = None, decode: bool = False) -> Any:
        return None

    def items(self) -> list[tuple[str, str]]:
        return self._fields

    def get_all(self, name: str, failobj: Any = None) -> Any:
        found = [value for field, value in self._fields if field.lower() == name.lower()]
        return found or failobj

    def get(self, name: str, failobj: Any = None) -> Any:
        return self.get_all(name, [failobj])[0]


class Answer(http.client.HTTPResponse):
    """Ordinary is a success with a length, on a connection that stays; all else is left to http.client."""

    def begin(self) -> None:
        ordinary = self.headers is None and self._method == "GET" and self._take_head()
        if not ordinary:
            super().begin()

    def _take_head(self) -> bool:
        """Whether the head was an ordinary one, and came in one piece; nothing of another is consumed."""
        assert isinstance(self.fp, io.BufferedReader)
        match = ORDINARY.match(self.fp.peek())
        if match is None:
            return False
        lines = match["fields"].decode("iso-8859-1").split("\r\n")[:-1]
        fields = [(name, value.lstrip(" \t")) for name, _, value in (line.partition(":") for line in lines)]
        known = {name.lower(): value for name, value in fields}
        length = known.get("content-length", "")
        if not (length.isascii() and length.isdigit()) or len(known) != len(fields) or "transfer-encoding" in known:
            return False
        if known.get("connection", "keep-alive").lower() != "keep-alive":
            return False
        self.fp.read(match.end())
        self.code = self.status = int(match["status"])
        self.reason, self.version = match["reason"].decode("ascii").strip(), 11
        self.headers = self.msg = Head(fields)
        self.chunked = self.will_close = False
        self.length = int(length)
        return True


class Connection(HTTPConnection):
    response_class = Answer


class TLSConnection(HTTPSConnection):
    response_class = Answer


class Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = Connection


class TLSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = TLSConnection


POOLS = {"http": Pool, "https": TLSPool}  # for `pool_classes_by_scheme` of a PoolManager
