"""A token server for docker-registry's auth.token: real JWTs, signed with a key whose certificate they carry."""

from __future__ import annotations

import base64
import contextlib
import json
import ssl
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from tests.servers.certificates import Pair
from tests.servers.registry import TokenAuth

SERVICE = "registry.tests"
ISSUER = "tokens.tests"


@dataclass(frozen=True)
class Asked:
    """A request for a token. `by` is the user it was for, "" for nobody."""

    method: str
    by: str
    scopes: tuple[str, ...]
    granted: tuple[str, ...]
    status: int


@dataclass
class TokenServer:
    """`passwords` and `identities` (refresh tokens) name users; `may` says what each may do: user -> repository prefix
    -> actions. The user "" is everybody. `life` is what tokens are said to live, in seconds."""

    signer: Pair
    host: str = ""
    scheme: str = "http"
    passwords: dict[str, str] = field(default_factory=dict)
    identities: dict[str, str] = field(default_factory=dict)
    may: dict[str, dict[str, str]] = field(default_factory=dict)
    life: int = 300
    asked: list[Asked] = field(default_factory=list)

    @property
    def auth(self) -> TokenAuth:
        return TokenAuth(f"{self.scheme}://{self.host}/token", SERVICE, ISSUER, self.signer.certificate)

    def grant(self, user: str, scope: str) -> dict[str, Any] | None:
        """What `user` gets of `repository:name:actions`."""
        kind, _, rest = scope.partition(":")
        name, _, actions = rest.rpartition(":")
        rules = {**self.may.get("", {}), **self.may.get(user, {})}
        allowed = {
            action for prefix, granted in rules.items() if name.startswith(prefix) for action in granted.split(",")
        }
        granted = [action for action in actions.split(",") if action in allowed]
        return {"type": kind, "name": name, "actions": granted} if granted else None

    def token(self, user: str, access: list[dict[str, Any]]) -> str:
        now = int(time.time())
        certificate = x509.load_pem_x509_certificate(self.signer.certificate.read_bytes())
        der = base64.b64encode(certificate.public_bytes(serialization.Encoding.DER)).decode()
        claims = {
            "iss": ISSUER,
            "sub": user,
            "aud": SERVICE,
            "exp": now + max(self.life, 30),
            "nbf": now - 5,
            "iat": now,
            "jti": uuid.uuid4().hex,
            "access": access,
        }
        return jwt.encode(claims, self.signer.key.read_text(), "RS256", headers={"x5c": [der]})


@contextlib.contextmanager
def token_server(signer: Pair, *, tls: Pair | None = None) -> Iterator[TokenServer]:
    """Started with nobody known and nothing allowed; set the attributes. `signer` signs the tokens."""
    server = TokenServer(signer, scheme="https" if tls else "http")
    http = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"tokens": server}))
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls.certificate, tls.key)
        http.socket = context.wrap_socket(http.socket, server_side=True)
    server.host = f"127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()


class _Handler(BaseHTTPRequestHandler):
    tokens: TokenServer

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        user = ""
        header = self.headers.get("Authorization", "")
        if header:
            user, _, password = base64.b64decode(header.removeprefix("Basic ")).decode().partition(":")
            if self.tokens.passwords.get(user) != password:
                self._answer(401, user, (), [])
                return
        self._grant(user, tuple(query.get("scope", [])), query.get("service", [""])[0])

    def do_POST(self) -> None:
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        users = [user for user, identity in self.tokens.identities.items() if [identity] == form.get("refresh_token")]
        if form.get("grant_type") != ["refresh_token"] or not users:
            self._answer(401, "", (), [])
            return
        self._grant(users[0], tuple(form.get("scope", [""])[0].split()), form.get("service", [""])[0])

    def _grant(self, user: str, scopes: tuple[str, ...], service: str) -> None:
        if service != SERVICE:
            self._answer(400, user, scopes, [])
            return
        access = [granted for scope in scopes if (granted := self.tokens.grant(user, scope)) is not None]
        self._answer(200, user, scopes, access)

    def _answer(self, status: int, user: str, scopes: tuple[str, ...], access: list[dict[str, Any]]) -> None:
        granted = tuple(f"repository:{item['name']}:{','.join(item['actions'])}" for item in access)
        self.tokens.asked.append(Asked(self.command, user, scopes, granted, status))
        value: dict[str, Any] = {"errors": [{"code": "UNAUTHORIZED", "message": "who are you?"}]}
        if status == 200:
            value = {"token": self.tokens.token(user, access), "expires_in": self.tokens.life}
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Tests look at what was recorded."""
