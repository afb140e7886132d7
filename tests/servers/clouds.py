"""Stand-ins for the token services of clouds, which exist nowhere but in the clouds: the SDKs talk to them unchanged.

Google's is named by the service account's file. Azure's hosts are fixed, so a CONNECT proxy leads to them.
"""

from __future__ import annotations

import contextlib
import json
import socketserver
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

from tests.servers.certificates import Pair

Answer = Callable[[str, str, dict[str, str]], tuple[int, dict[str, Any]]]
"""Host, path and form of a request -> status and JSON."""


class _Handler(BaseHTTPRequestHandler):
    answer: Answer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._reply({})

    def do_POST(self) -> None:
        text = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        self._reply({key: values[0] for key, values in parse_qs(text).items()})

    def _reply(self, form: dict[str, str]) -> None:
        status, value = type(self).answer(self.headers["Host"], self.path.partition("?")[0], form)
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Tests look at what was asked."""


@contextlib.contextmanager
def json_server(answer: Answer, *, tls: Pair | None = None) -> Iterator[str]:
    """Plain HTTP, or behind `tls`; its URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"answer": staticmethod(answer)}))
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls.certificate, tls.key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def every_https_host(pair: Pair, answer: Answer) -> Iterator[str]:
    """A proxy whose every CONNECT ends at `answer`, behind TLS with `pair`; its URL."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    handler = type("Handler", (_Handler,), {"answer": staticmethod(answer)})

    class Proxy(socketserver.StreamRequestHandler):
        rbufsize = 0  # what follows the request's head is TLS

        def handle(self) -> None:
            while self.rfile.readline().strip():
                pass
            self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
            with context.wrap_socket(self.connection, server_side=True) as connection:
                handler(connection, self.client_address, self.server)  # type: ignore[arg-type]

    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Proxy)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
