"""Who is told what: Basic, token servers, and what credentials never reach."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from builder.errors import RegistryError
from builder.oci.image import Image
from builder.oci.reference import Reference
from builder.registry import challenge
from builder.registry.pull import resolve
from builder.registry.push import Uploader
from tests.images import AMD64, image, layer, noise
from tests.registry.conftest import Connect
from tests.servers.certificates import Authority, Pair
from tests.servers.front import Answer, Front
from tests.servers.registry import RegistryServer, TokenAuth
from tests.servers.tokens import TokenServer, token_server

MADE = image(layer({"a": noise(50_000)}))
Start = Callable[..., RegistryServer]


def auths(**entries: tuple[str, str] | Mapping[str, str]) -> dict[str, str]:
    """DOCKER_AUTH_CONFIG for keys (`host`, `host/path`) and (user, password) pairs or whole entries."""
    values = {
        key: {"auth": base64.b64encode(":".join(entry).encode()).decode()} if isinstance(entry, tuple) else entry
        for key, entry in entries.items()
    }
    return {"DOCKER_AUTH_CONFIG": json.dumps({"auths": values})}


def push(connect: Connect, name: str, environ: Mapping[str, str], made: Image = MADE, **settings: Any) -> None:
    registries = connect(environ, **settings)
    with Uploader(registries, registries.repository(Reference.parse(name), "push")) as uploader:
        uploader.finish(made, ["1"])


def pull(connect: Connect, name: str, environ: Mapping[str, str], **settings: Any) -> bytes:
    found = resolve(Reference.parse(f"{name}:1"), AMD64, connect(environ, **settings))
    with found.image.layers[0].blob.open() as stream:
        return stream.read()


# Basic


def test_basic(registry: Start, connect: Connect) -> None:
    server = registry(users={"me": "secret: with colon"})
    known = auths(**{server.host: ("me", "secret: with colon")})
    push(connect, f"{server.host}/app", known)
    assert pull(connect, f"{server.host}/app", known)


def test_a_401_explains_itself(registry: Start, connect: Connect, tmp_path: Path) -> None:
    server = registry(users={"me": "secret"})
    with pytest.raises(RegistryError) as caught:
        connect().repository(Reference.parse(f"{server.host}/app"), "push").check_push()
    assert caught.value.message.startswith(f"{server.host}/app: 401 UNAUTHORIZED while starting an upload")
    assert caught.value.hint == (
        f"no credential for {server.host}/app; looked in {tmp_path}/home/.docker/config.json "
        "and the environment (env, google, ecr, acr, gitlab)"
    )
    with pytest.raises(RegistryError) as caught:
        pull(connect, f"{server.host}/app", auths(**{server.host: ("me", "wrong-secret")}))
    assert caught.value.status == 401
    assert caught.value.hint == (f"the password from DOCKER_AUTH_CONFIG (entry {server.host}) does not allow it")
    assert "wrong-secret" not in f"{caught.value} {caught.value.hint} {caught.value!r}"


def test_credentials_of_another_repository_are_not_sent(
    registry: Start, troubled: Callable[..., Front], connect: Connect
) -> None:
    server = registry(users={"me": "secret"})
    front = troubled(server.host)
    known = auths(**{f"{front.host}/org-a": ("me", "secret")})
    push(connect, f"{front.host}/org-a/app", known)
    front.seen.clear()
    with pytest.raises(RegistryError, match="401"):
        push(connect, f"{front.host}/org-b/app", known)
    with pytest.raises(RegistryError, match="401"):
        push(connect, f"{front.host}/org-ab/app", known)
    assert not [seen for seen in front.seen if "Authorization" in seen.headers]


def test_credentials_do_not_follow_a_redirect_to_another_host(
    registry: Start, troubled: Callable[..., Front], connect: Connect, tmp_path: Path
) -> None:
    """Blobs of many registries lie elsewhere; here in an open registry on the same files."""
    server = registry(directory=tmp_path / "shared", users={"me": "secret"})
    storage = troubled(registry(directory=tmp_path / "shared").host)
    front = troubled(server.host)
    known = auths(**{front.host: ("me", "secret"), storage.host: ("me", "secret")})
    push(connect, f"{front.host}/app", known)
    digest = MADE.layers[0].descriptor.digest
    front.fault(Answer(307, {"Location": f"http://{storage.host}/v2/app/blobs/{digest}"}), "GET", digest)
    assert pull(connect, f"{front.host}/app", known)
    assert [seen.path for seen in storage.seen] == [f"/v2/app/blobs/{digest}"]
    assert "Authorization" not in storage.seen[0].headers
    assert "Authorization" in front.seen[-1].headers


def test_an_upload_that_goes_to_another_host_carries_no_credential(
    registry: Start, troubled: Callable[..., Front], connect: Connect, tmp_path: Path
) -> None:
    server = registry(directory=tmp_path / "shared", users={"me": "secret"})
    elsewhere = troubled(registry(directory=tmp_path / "shared").host)
    front = troubled(server.host)
    location = {"Location": f"http://{elsewhere.host}/v2/app/blobs/uploads/6f5a3f65-1f0c-4d2c-9a3f-000000000000"}
    front.fault(Answer(202, location), "POST")
    push(connect, f"{front.host}/app", auths(**{front.host: ("me", "secret")}))  # by a second upload
    assert [seen.method for seen in elsewhere.seen] == ["PUT"]
    assert not [seen for seen in elsewhere.seen if "Authorization" in seen.headers]


# Token servers


@pytest.fixture
def guarded(registry: Start, tokens: TokenServer) -> RegistryServer:
    """A registry where `me` may do anything below team/, and everybody may pull below public/."""
    tokens.passwords = {"me": "secret", "reader": "secret"}
    tokens.identities = {"me": "identity-of-me"}
    tokens.may = {
        "": {"public/": "pull"},
        "me": {"team/": "pull,push,delete", "public/": "pull,push"},
        "reader": {"team/": "pull"},
    }
    return registry(token=tokens.auth)


@pytest.mark.parametrize(
    "entry", [("me", "secret"), {"identitytoken": "identity-of-me"}, ("<token>", "identity-of-me")]
)
def test_a_token_server(
    guarded: RegistryServer, tokens: TokenServer, connect: Connect, entry: tuple[str, str] | Mapping[str, str]
) -> None:
    known = auths(**{guarded.host: entry})
    push(connect, f"{guarded.host}/team/app", known)
    assert pull(connect, f"{guarded.host}/team/app", known)
    assert {asked.by for asked in tokens.asked} == {"me"}
    assert {asked.method for asked in tokens.asked} == {"GET" if entry == ("me", "secret") else "POST"}


def test_tokens_are_kept_by_scope(guarded: RegistryServer, tokens: TokenServer, connect: Connect) -> None:
    known = auths(**{guarded.host: ("me", "secret")})
    registries = connect(known)
    repository = registries.repository(Reference.parse(f"{guarded.host}/team/app"), "push")
    repository.check_push()
    with Uploader(registries, repository) as uploader:
        uploader.finish(image(*(layer({"a": noise(1000, seed)}) for seed in range(6))), ["1", "2"])
    assert [asked.scopes for asked in tokens.asked] == [("repository:team/app:pull,push",)]
    resolve(Reference.parse(f"{guarded.host}/team/app:1"), AMD64, registries)
    repository.delete_manifest(str(repository.head_manifest("1") and repository.head_manifest("1").digest))  # type: ignore[union-attr]
    assert [asked.scopes for asked in tokens.asked[1:]] == [
        ("repository:team/app:pull",),
        ("repository:team/app:delete",),
    ]


def test_anonymous_pull_with_a_token(guarded: RegistryServer, tokens: TokenServer, connect: Connect) -> None:
    push(connect, f"{guarded.host}/public/app", auths(**{guarded.host: ("me", "secret")}))
    tokens.asked.clear()
    assert pull(connect, f"{guarded.host}/public/app", {})
    assert {asked.by for asked in tokens.asked} == {""}


def test_a_credential_that_may_not_push(guarded: RegistryServer, connect: Connect) -> None:
    known = auths(**{guarded.host: ("reader", "secret")})
    with pytest.raises(RegistryError, match=r"team/app: 401 UNAUTHORIZED while starting an upload") as caught:
        connect(known).repository(Reference.parse(f"{guarded.host}/team/app"), "push").check_push()
    assert "does not allow it" in caught.value.hint


def test_a_token_server_that_refuses(guarded: RegistryServer, tokens: TokenServer, connect: Connect) -> None:
    known = auths(**{guarded.host: ("me", "wrong-secret")})
    with pytest.raises(RegistryError) as caught:
        pull(connect, f"{guarded.host}/team/app", known)
    assert f"401 UNAUTHORIZED while asking {tokens.host} for a token" in caught.value.message
    assert f"DOCKER_AUTH_CONFIG (entry {guarded.host})" in caught.value.hint
    assert "wrong-secret" not in f"{caught.value.message} {caught.value.hint}"


def test_tokens_are_renewed_before_they_expire(guarded: RegistryServer, tokens: TokenServer, connect: Connect) -> None:
    tokens.life = 0  # what is said to be 0 counts as 60 s; a negative life is over at once
    known = auths(**{guarded.host: ("me", "secret")})
    repository = connect(known).repository(Reference.parse(f"{guarded.host}/team/app"), "push")
    repository.check_push()
    assert len(tokens.asked) == 1
    tokens.life = -1
    other = connect(known).repository(Reference.parse(f"{guarded.host}/team/app"), "push")
    other.check_push()
    assert len(tokens.asked) > 2


def test_a_token_that_is_refused_is_replaced(
    guarded: RegistryServer, tokens: TokenServer, troubled: Callable[..., Front], connect: Connect
) -> None:
    """As when a registry restarts with another key, or a token is revoked."""
    front = troubled(guarded.host)
    known = auths(**{front.host: ("me", "secret")})
    registries = connect(known)
    repository = registries.repository(Reference.parse(f"{front.host}/team/app"), "push")
    repository.check_push()
    header = f'Bearer realm="{tokens.auth.realm}",service="{tokens.auth.service}",scope="repository:team/app:pull,push"'
    front.fault(Answer(401, {"WWW-Authenticate": header}), "POST")
    repository.check_push()
    assert len(tokens.asked) == 2


def test_many_threads_ask_for_one_token(guarded: RegistryServer, tokens: TokenServer, connect: Connect) -> None:
    known = auths(**{guarded.host: ("me", "secret")})
    repository = connect(known).repository(Reference.parse(f"{guarded.host}/team/app"), "push")
    threads = [threading.Thread(target=repository.check_push) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(tokens.asked) == 1


def test_mounting_asks_for_both_repositories(guarded: RegistryServer, tokens: TokenServer, connect: Connect) -> None:
    known = auths(**{guarded.host: ("me", "secret")})
    push(connect, f"{guarded.host}/public/base", known)
    registries = connect(known)
    found = resolve(Reference.parse(f"{guarded.host}/public/base:1"), AMD64, registries)
    with Uploader(registries, registries.repository(Reference.parse(f"{guarded.host}/team/app"), "push")) as uploader:
        uploader.copy(found, ["1"])
    assert ("repository:team/app:pull,push", "repository:public/base:pull") in [asked.scopes for asked in tokens.asked]
    assert [line for line in guarded.requests("POST", "/v2/team/app/") if "mount=" in line and line.endswith("201")]


def test_a_mount_that_the_token_does_not_cover(guarded: RegistryServer, tokens: TokenServer, connect: Connect) -> None:
    tokens.passwords["other"] = "secret"
    tokens.may["other"] = {"other/": "pull,push"}
    push(connect, f"{guarded.host}/other/base", auths(**{guarded.host: ("other", "secret")}))
    known = auths(**{f"{guarded.host}/other": ("other", "secret"), f"{guarded.host}/team": ("me", "secret")})
    registries = connect(known)
    found = resolve(Reference.parse(f"{guarded.host}/other/base:1"), AMD64, registries)
    with Uploader(registries, registries.repository(Reference.parse(f"{guarded.host}/team/app"), "push")) as uploader:
        uploader.copy(found, ["1"])
    assert resolve(Reference.parse(f"{guarded.host}/team/app:1"), AMD64, registries).image == MADE


def test_a_registry_token_is_sent_as_it_is(guarded: RegistryServer, tokens: TokenServer, connect: Connect) -> None:
    access = [{"type": "repository", "name": "team/app", "actions": ["pull", "push"]}]
    known = auths(**{guarded.host: {"registrytoken": tokens.token("me", access)}})
    connect(known).repository(Reference.parse(f"{guarded.host}/team/app"), "push").check_push()
    assert tokens.asked == []


def test_a_token_server_over_http_gets_nothing_from_a_tls_registry(
    registry: Start, tokens: TokenServer, connect: Connect, authority: Authority
) -> None:
    pair = authority.server()
    tokens.passwords = {"me": "secret"}
    server = registry(certificate=(pair.certificate, pair.key), token=tokens.auth)
    known = auths(**{server.host: ("me", "secret")})
    with pytest.raises(RegistryError, match="is plain HTTP, where a credential would be readable"):
        pull(connect, f"{server.host}/app", known, certificates={server.host: authority.certificate})
    assert tokens.asked == []


def test_a_token_server_with_tls(registry: Start, connect: Connect, authority: Authority, signer: Pair) -> None:
    pair = authority.server()
    with token_server(signer, tls=pair) as tokens:
        tokens.passwords, tokens.may = {"me": "secret"}, {"me": {"": "pull,push"}}
        server = registry(certificate=(pair.certificate, pair.key), token=tokens.auth)
        known = auths(**{server.host: ("me", "secret")})
        certificates = {server.host: authority.certificate, tokens.host: authority.certificate}
        push(connect, f"{server.host}/app", known, certificates=certificates)
        assert pull(connect, f"{server.host}/app", known, certificates=certificates)


@pytest.mark.parametrize("realm", ["", "file:///etc/passwd", "http://user:pass@127.0.0.1/token"])
def test_a_realm_that_is_no_url(registry: Start, tokens: TokenServer, connect: Connect, realm: str) -> None:
    auth = TokenAuth(realm or "token", tokens.auth.service, tokens.auth.issuer, tokens.auth.certificate)
    server = registry(token=auth)
    with pytest.raises(RegistryError, match="which is no URL"):
        pull(connect, f"{server.host}/app", {})


def test_a_token_server_that_talks_nonsense(
    guarded: RegistryServer, tokens: TokenServer, troubled: Callable[..., Front], registry: Start, connect: Connect
) -> None:
    front = troubled(tokens.host)
    auth = TokenAuth(f"http://{front.host}/token", tokens.auth.service, tokens.auth.issuer, tokens.auth.certificate)
    server = registry(token=auth)
    for body in (b"", b"{}", b"[]", b'{"token": 7}'):
        front.fault(Answer(200, {}, body))
        with pytest.raises(RegistryError, match="something that is no token"):
            pull(connect, f"{server.host}/app", {})


# Headers


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", []),
        ("Basic", [("basic", {})]),
        ('Basic realm="a b"', [("basic", {"realm": "a b"})]),
        (
            'Bearer realm="https://a/token",service=b,Scope="repository:c:pull,push"',
            [("bearer", {"realm": "https://a/token", "service": "b", "scope": "repository:c:pull,push"})],
        ),
        (
            'Basic realm="x, Bearer y=z", Bearer realm="https://a"',
            [("basic", {"realm": "x, Bearer y=z"}), ("bearer", {"realm": "https://a"})],
        ),
        (r'Basic realm="say \"hi\""', [("basic", {"realm": 'say "hi"'})]),
        ('Negotiate, Basic realm = "x"', [("negotiate", {}), ("basic", {"realm": "x"})]),
        ("realm=x", []),
    ],
)
def test_challenges(header: str, expected: list[tuple[str, dict[str, str]]]) -> None:
    assert [(item.scheme, dict(item.parameters)) for item in challenge.parse(header)] == expected
