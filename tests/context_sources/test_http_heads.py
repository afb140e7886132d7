"""Heads of answers beside what http.client makes of them."""

from __future__ import annotations

import http.client
import socket
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from context_sources.http_heads import Answer, Head

BODY = b"0123456789"
VALUES = st.text(st.characters(max_codepoint=255, exclude_characters="\r\n"), max_size=8).map(
    lambda text: text.encode("iso-8859-1")
)
FIELDS = st.one_of(
    st.sampled_from(
        [
            b"Content-Length: 4",
            b"content-length:10",
            b"Content-Length: 4 ",
            b"Content-Length: -1",
            b"Transfer-Encoding: chunked",
            b"Connection: close",
            b"Connection: keep-alive",
            b"Connection: Keep-Alive, x",
            b" folded",
            b"From here",
            b"no colon",
            b": no name",
            b"Content-Type: multipart/mixed; boundary=x",
        ]
    ),
    st.builds(lambda name, value: name + b":" + value, st.sampled_from([b"ETag", b"X", b"x", b"b\xe4d"]), VALUES),
)
STATUS_LINES = st.sampled_from(
    [
        b"HTTP/1.1 200 OK",
        b"HTTP/1.1 206 Partial Content",
        b"HTTP/1.1 200 ",
        b"HTTP/1.1 200",
        b"HTTP/1.0 200 OK",
        b"HTTP/1.1 204 No Content",
        b"HTTP/1.1 404 Not Found",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK",
        b"HTTP/2 200",
        b"hello",
    ]
)


def read(kind: type[http.client.HTTPResponse], method: str, answer: bytes) -> Any:
    """All that a program sees of an answer, or the error that it gets."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(answer)
        theirs.shutdown(socket.SHUT_WR)
        response = kind(ours, method=method)
        try:
            response.begin()
            head = (response.status, response.reason, response.version, response.headers.items())
            state = (response.length, bool(response.chunked), bool(response.will_close))
            return head, state, response.getheader("ETag"), response.read(), response.isclosed()
        except http.client.HTTPException as error:
            return type(error)
        finally:
            response.close()


@given(STATUS_LINES, st.lists(FIELDS, max_size=4), st.sampled_from(["\r\n", "\n"]), st.sampled_from(["GET", "HEAD"]))
@example(b"HTTP/1.1 200 OK", [b"Content-Length: 4", b"ETag:\t a"], "\r\n", "GET")
@example(b"HTTP/1.1 206 Partial Content", [b"Content-Length: 10", b"Connection: close"], "\r\n", "GET")
@example(b"HTTP/1.1 200 OK", [b"Content-Length: 12"], "\r\n", "GET")
def test_answers_are_what_http_client_reads(status: bytes, fields: list[bytes], end: str, method: str) -> None:
    newline = end.encode()
    answer = newline.join([status, *fields, b"", BODY])
    assert read(Answer, method, answer) == read(http.client.HTTPResponse, method, answer)


def test_ordinary_heads_are_read_here() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"HTTP/1.1 200 OK\r\nETag: a\r\nContent-Length: 4\r\n\r\n0123HTTP/1.1 ")
        response = Answer(ours, method="GET")
        response.begin()
        assert isinstance(response.headers, Head)
        assert (response.headers["etag"], response.headers.get("x"), response.getheader("x", "-")) == ("a", None, "-")
        assert response.read() == b"0123"
        response.close()
