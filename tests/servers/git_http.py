"""git over https: git's own http-backend behind a small server with basic authentication, and LFS beside it."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.servers.certificates import Pair

BACKEND = Path("/usr/lib/git-core/git-http-backend")


@dataclass
class GitServer:
    """`url` is its root; repositories lie in `root` (NAME.git), LFS objects in `lfs`. `users`: name -> password.

    A user `*` is any name. `cuts` is how many answers with a pack are still to be cut in the middle. `seen` has the
    users that came ("" for none).
    """

    root: Path
    lfs: Path
    users: dict[str, str] = field(repr=False)
    url: str = ""
    forbidden: str = ""
    cuts: int = 0
    seen: list[tuple[str, str]] = field(default_factory=list)


def missing() -> str:
    """Why it cannot be started, or ""."""
    if not shutil.which("git"):
        return "git is not installed"
    return "" if BACKEND.exists() else f"{BACKEND} is not there"


@contextlib.contextmanager
def git_http(directory: Path, *, tls: Pair | None = None, users: dict[str, str] | None = None) -> Iterator[GitServer]:
    """Plain http without `tls`; open to all without `users`."""
    server = GitServer(directory / "repositories", directory / "lfs", users or {})
    server.root.mkdir(parents=True, exist_ok=True)
    server.lfs.mkdir(exist_ok=True)
    http_server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"git": server}))
    http_server.daemon_threads = True
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls.certificate, tls.key)
        http_server.socket = context.wrap_socket(http_server.socket, server_side=True)
    server.url = f"{'https' if tls else 'http'}://127.0.0.1:{http_server.server_port}"
    threading.Thread(target=http_server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield server
    finally:
        http_server.shutdown()
        http_server.server_close()


class _Handler(BaseHTTPRequestHandler):
    git: GitServer
    protocol_version = "HTTP/1.1"

    def handle_any(self) -> None:
        body = self._body()
        path, _, query = self.path.partition("?")
        user = self._user()
        self.git.seen.append((path, user or ""))
        if self.git.forbidden and self.git.forbidden in path:
            self._answer(403, b"forbidden")
        elif self.git.users and user is None:
            self._answer(401, b"login", {"WWW-Authenticate": 'Basic realm="git"'})
        elif "/info/lfs/objects/batch" in path:
            self._lfs_batch(json.loads(body))
        elif path.startswith("/lfs-object/"):
            self._lfs_object(path.rpartition("/")[2], body)
        else:
            self._backend(path, query, body)

    do_GET = do_POST = do_PUT = do_HEAD = handle_any  # noqa: N815  # http.server's names

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        data = b""
        while size := int(self.rfile.readline(), 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return data

    def _user(self) -> str | None:
        kind, _, value = self.headers.get("Authorization", "").partition(" ")
        if kind != "Basic":
            return None
        user, _, password = base64.b64decode(value).decode().partition(":")
        expected = self.git.users.get(user, self.git.users.get("*"))
        return user if expected is not None and expected == password else None

    def _backend(self, path: str, query: str, body: bytes) -> None:
        done = subprocess.run(
            [str(BACKEND)],
            input=body,
            capture_output=True,
            env={
                "PATH": os.environ["PATH"],
                "GIT_PROJECT_ROOT": str(self.git.root),
                "GIT_HTTP_EXPORT_ALL": "1",
                "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
                "GIT_CONFIG_COUNT": "2",
                "GIT_CONFIG_KEY_0": "safe.directory",
                "GIT_CONFIG_VALUE_0": "*",
                "GIT_CONFIG_KEY_1": "uploadpack.allowFilter",
                "GIT_CONFIG_VALUE_1": "true",
                "PATH_INFO": path,
                "QUERY_STRING": query,
                "REQUEST_METHOD": self.command,
                "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                "CONTENT_LENGTH": str(len(body)),
                "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                "REMOTE_ADDR": "127.0.0.1",
            },
        )
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if ": " in line)
        status = int(headers.pop("Status", "200").split()[0])
        cut = b"PACK" in content and self.git.cuts > 0
        self._answer(status, content, headers, len(content) // 2 if cut else None)
        if cut:
            self.git.cuts -= 1
            self.close_connection = True

    def _lfs_batch(self, asked: dict[str, object]) -> None:
        host = f"{self.git.url}/lfs-object"
        objects = []
        for item in asked["objects"]:  # type: ignore[attr-defined]
            action = {"href": f"{host}/{item['oid']}"}
            objects.append({**item, "authenticated": False, "actions": {asked["operation"]: action}})
        answer = json.dumps({"transfer": "basic", "objects": objects}).encode()
        self._answer(200, answer, {"Content-Type": "application/vnd.git-lfs+json"})

    def _lfs_object(self, oid: str, body: bytes) -> None:
        path = self.git.lfs / oid
        if self.command == "PUT":
            assert hashlib.sha256(body).hexdigest() == oid
            path.write_bytes(body)
            self._answer(200, b"")
        else:
            self._answer(200, path.read_bytes()) if path.exists() else self._answer(404, b"")

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None, sent: int | None = None) -> None:
        self.send_response_only(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(body[:sent])

    def log_message(self, *_: object) -> None:
        """Tests look at what was recorded."""
