"""A reverse proxy that stands before a real server and makes trouble: it cuts connections, refuses, redirects."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import struct
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.servers.certificates import Pair

_BLOCK = 64 << 10
_HOP_BY_HOP = ("connection", "keep-alive", "transfer-encoding")


@dataclass(frozen=True)
class Answer:
    """Answer by itself; the server never hears of the request."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True)
class CutRequest:
    """Pass on `after` bytes of the request's body, then reset both connections."""

    after: int


@dataclass(frozen=True)
class CutResponse:
    """Pass on `after` bytes of the answer's body, then reset the connection; `orderly` closes it instead.

    A reset may overtake bytes that were sent before it.
    """

    after: int
    orderly: bool = False


@dataclass(frozen=True)
class Hold:
    """Pass on `after` bytes of the answer's body, then say nothing more, and stay connected until `until` is set."""

    until: threading.Event
    after: int = 0


@dataclass(frozen=True)
class DropAnswer:
    """Let the server do what it is asked, then reset the connection instead of saying so."""


@dataclass(frozen=True)
class Corrupt:
    """Change one byte of the answer's body."""


@dataclass(frozen=True)
class Without:
    """Pass the request on without a header."""

    header: str


@dataclass(frozen=True)
class WithQuery:
    """Pass the request on with one more `name=value` first in its query: where no signature covers that."""

    text: str


@dataclass(frozen=True)
class Together:
    """Pass a request on when as many as `barrier` counts are there: none of them waits for another's answer."""

    barrier: threading.Barrier


Trouble = Together | Answer | CutRequest | CutResponse | Hold | DropAnswer | Corrupt | Without | WithQuery


@dataclass
class Fault:
    """`trouble` for the next `times` requests with this method ("" for any) whose path contains `path`."""

    trouble: Trouble
    method: str = ""
    path: str = ""
    times: int = 1


@dataclass(frozen=True)
class Seen:
    """A request as it came."""

    method: str
    path: str
    headers: Mapping[str, str] = field(repr=False)


@dataclass
class Front:
    """`host` is where it listens; `seen` everything that came, by how many `connections`; `faults` what is still to
    happen."""

    backend: str
    host: str = ""
    seen: list[Seen] = field(default_factory=list)
    connections: int = 0
    faults: list[Fault] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def fault(self, trouble: Trouble, method: str = "", path: str = "", times: int = 1) -> None:
        with self.lock:
            self.faults.append(Fault(trouble, method, path, times))

    def count(self, method: str, path: str = "") -> int:
        with self.lock:
            return sum(request.method == method and path in request.path for request in self.seen)

    def take(self, method: str, path: str) -> Trouble | None:
        with self.lock:
            for fault in self.faults:
                if fault.times and fault.method in ("", method) and fault.path in path:
                    fault.times -= 1
                    return fault.trouble
        return None


@contextlib.contextmanager
def front(backend: str, *, tls: Pair | None = None, port: int = 0) -> Iterator[Front]:
    """Before `backend` (host:port, plain HTTP), on a free port unless one is given."""
    server = Front(backend)
    http_server = ThreadingHTTPServer(("127.0.0.1", port), type("Handler", (_Handler,), {"front": server}))
    http_server.daemon_threads = True
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls.certificate, tls.key)
        http_server.socket = context.wrap_socket(http_server.socket, server_side=True)
    server.host = f"127.0.0.1:{http_server.server_port}"
    threading.Thread(target=http_server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield server
    finally:
        http_server.shutdown()
        http_server.server_close()


class _Handler(BaseHTTPRequestHandler):
    front: Front
    protocol_version = "HTTP/1.1"
    wbufsize = _BLOCK

    def setup(self) -> None:
        with self.front.lock:
            self.front.connections += 1
        super().setup()

    def handle_any(self) -> None:
        with self.front.lock:
            self.front.seen.append(Seen(self.command, self.path, dict(self.headers.items())))
        trouble = self.front.take(self.command, self.path)
        length = int(self.headers.get("Content-Length") or 0)
        if isinstance(trouble, Answer):
            while length and (piece := self.rfile.read(min(length, _BLOCK))):
                length -= len(piece)
            self._begin(trouble.status, {**trouble.headers, "Content-Length": str(len(trouble.body))})
            self.wfile.write(b"" if self.command == "HEAD" else trouble.body)
            return
        if isinstance(trouble, Together):
            trouble.barrier.wait()
        backend = http.client.HTTPConnection(self.front.backend)
        try:
            self._pass_on(backend, length, trouble)
        except OSError:
            self._reset()
        finally:
            backend.close()

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any  # noqa: N815  # http.server's names

    def _pass_on(self, backend: http.client.HTTPConnection, length: int, trouble: Trouble | None) -> None:
        path = self.path
        if isinstance(trouble, WithQuery):
            path, _, query = path.partition("?")
            path = f"{path}?{trouble.text}&{query}"
        backend.putrequest(self.command, path, skip_host=True, skip_accept_encoding=True)
        dropped = trouble.header.lower() if isinstance(trouble, Without) else ""
        for name, value in self.headers.items():
            if name.lower() not in (*_HOP_BY_HOP, dropped):
                backend.putheader(name, value)
        backend.endheaders()
        left = min(length, trouble.after) if isinstance(trouble, CutRequest) else length
        while left:
            piece = self.rfile.read(min(left, _BLOCK))
            if not piece:
                raise ConnectionError("the client went away")
            backend.send(piece)
            left -= len(piece)
        if isinstance(trouble, CutRequest):
            self._reset()
            return
        response = backend.getresponse()
        if isinstance(trouble, DropAnswer):
            response.read()
            self._reset()
            return
        headers = {name: value for name, value in response.getheaders() if name.lower() not in _HOP_BY_HOP}
        empty = self.command == "HEAD" or response.status in (204, 304)
        endless = response.getheader("Content-Length") is None and not empty
        self._begin(response.status, {**headers, **({"Connection": "close"} if endless else {})})
        if empty:
            return
        self._send_body(response, trouble)
        if endless:
            self.close_connection = True  # which ends a body that came in chunks

    def _send_body(self, response: http.client.HTTPResponse, trouble: Trouble | None) -> None:
        sent = 0
        while piece := response.read(_BLOCK):
            if isinstance(trouble, Corrupt) and not sent:
                piece = bytes([piece[0] ^ 1]) + piece[1:]
            if isinstance(trouble, Hold) and sent + len(piece) > trouble.after:
                self.wfile.write(piece[: trouble.after - sent])
                self.wfile.flush()
                trouble.until.wait()
                self.close_connection = True
                return
            if isinstance(trouble, CutResponse) and sent + len(piece) > trouble.after:
                self.wfile.write(piece[: trouble.after - sent])
                self.wfile.flush()
                self.close_connection = True
                if not trouble.orderly:
                    self._reset()
                return
            self.wfile.write(piece)
            sent += len(piece)

    def _begin(self, status: int, headers: Mapping[str, str]) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _reset(self) -> None:
        """Close so that the other side gets a reset, not an orderly end."""
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def finish(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            super().finish()

    def log_message(self, *_: object) -> None:
        """Tests look at what was recorded."""
