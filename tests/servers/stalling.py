"""A server that falls silent in the middle of a transfer, and keeps the connection open."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class StallingServer:
    """`host` is 127.0.0.1:port. `stalled` is set once it has fallen silent; `requests` are all that it got."""

    host: str
    stalled: threading.Event = field(default_factory=threading.Event)
    requests: list[str] = field(default_factory=list)


@contextlib.contextmanager
def stalling_server(answers: Mapping[str, bytes], stalls_at: str) -> Iterator[StallingServer]:
    """GET gives `answers` by their paths, but of the one that `stalls_at` names the first half only.

    It begins uploads as a registry does; with `stalls_at` "upload" it reads nothing of what is uploaded.
    """
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            server.requests.append(f"{self.command} {self.path}")
            path = self.path.partition("?")[0]
            data = answers.get(path, b"{}" if path == "/v2/" else None)
            self.send_response(404 if data is None else 200)
            self.send_header("Content-Length", str(len(data or b"")))
            if "/manifests/" in path:
                self.send_header("Content-Type", "application/vnd.oci.image.manifest.v1+json")
            self.end_headers()
            if data is None or self.command == "HEAD":
                return
            if path != stalls_at:
                self.wfile.write(data)
                return
            self.wfile.write(data[: len(data) // 2])
            self._fall_silent()

        do_HEAD = do_GET  # noqa: N815 - the name that the library looks for

        def do_POST(self) -> None:
            server.requests.append(f"POST {self.path}")
            self.send_response(202)
            self.send_header("Location", f"{self.path.partition('?')[0]}upload")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_PUT(self) -> None:
            server.requests.append(f"PUT {self.path}")
            self._fall_silent()

        def do_PATCH(self) -> None:
            server.requests.append(f"PATCH {self.path}")
            self._fall_silent()

        def do_DELETE(self) -> None:
            self.send_response(204)
            self.end_headers()

        def _fall_silent(self) -> None:
            self.wfile.flush()
            server.stalled.set()
            over.wait()
            self.close_connection = True

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        http.daemon_threads = True
        server = StallingServer(f"127.0.0.1:{http.server_address[1]}")
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            over.set()
            http.shutdown()
            thread.join()
