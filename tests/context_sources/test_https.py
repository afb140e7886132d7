"""Archives on a web server: real lighttpd, behind a proxy that adds TLS and trouble."""

from __future__ import annotations

import gzip
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.errors import ContextError, UsageError
from tests.context_sources.conftest import FILES, QUICK, Fetcher, archive_of, tree
from tests.servers import tinyproxy, web
from tests.servers.certificates import Authority
from tests.servers.front import Answer, CutResponse, Front, Without, front
from tests.servers.web import WebServer, web_server

PASSWORD = "hunter2-hunter2"
BIG_FILES = {**FILES, "big": os.urandom(3 << 20)}
BIG = archive_of(BIG_FILES)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    if reason := web.missing():
        pytest.skip(reason)
    with web_server(tmp_path_factory.mktemp("web"), {"user": PASSWORD}) as running:
        (running.root / "context.tar.gz").write_bytes(gzip.compress(archive_of(FILES)))
        (running.root / "big.tar").write_bytes(BIG)
        (running.root / "private" / "context.tar").write_bytes(archive_of(FILES))
        yield running


@pytest.fixture
def site(server: WebServer, authority: Authority) -> Iterator[Front]:
    with front(server.host, tls=authority.server()) as running:
        yield running


@pytest.fixture
def trusting(authority: Authority) -> dict[str, str]:
    return {"SSL_CERT_FILE": str(authority.certificate)}


def test_an_archive_is_unpacked(site: Front, trusting: dict[str, str], fetcher: Fetcher) -> None:
    fetched = fetcher(f"https://{site.host}/context.tar.gz", trusting)
    assert tree(fetched.path) == FILES
    assert fetched.source == f"https://{site.host}/context.tar.gz"
    assert fetched.revision_kind == "digest"
    assert fetched.revision in fetcher.log


def test_certificates_come_from_a_directory_too(
    site: Front, authority: Authority, tmp_path: Path, fetcher: Fetcher
) -> None:
    (tmp_path / "certificates").mkdir()
    (tmp_path / "certificates" / "no certificate").write_text("something else")
    (tmp_path / "certificates" / "ours.pem").write_bytes(authority.certificate.read_bytes())
    environment = {"SSL_CERT_DIR": f"/absent:{tmp_path / 'certificates'}"}
    assert tree(fetcher(f"https://{site.host}/context.tar.gz", environment).path) == FILES


def test_a_strange_certificate_is_refused(site: Front, fetcher: Fetcher) -> None:
    with pytest.raises(ContextError, match="certificate is not trusted") as caught:
        fetcher(f"https://{site.host}/context.tar.gz", {})
    assert "SSL_CERT_FILE" in caught.value.hint
    assert site.count("GET") == 0


def test_the_checksum_is_checked(site: Front, trusting: dict[str, str], fetcher: Fetcher) -> None:
    right = hashlib.sha256(BIG).hexdigest()
    assert fetcher(f"https://{site.host}/big.tar#sha256={right}", trusting).revision == f"sha256:{right}"
    with pytest.raises(ContextError, match=f"has SHA-256 {right}, not 0000"):
        fetcher(f"https://{site.host}/big.tar#sha256={'0' * 64}", trusting)
    assert os.listdir(fetcher.into) == []
    with pytest.raises(UsageError, match="is no checksum"):
        fetcher(f"https://{site.host}/big.tar#main", trusting)


def test_plain_http_must_be_allowed(server: WebServer, fetcher: Fetcher) -> None:
    with pytest.raises(UsageError) as caught:
        fetcher(f"http://{server.host}/context.tar.gz")
    assert "--context-allow-http" in caught.value.hint
    assert tree(fetcher(f"http://{server.host}/context.tar.gz", allow_http=True).path) == FILES


def test_a_redirect_to_plain_http_must_be_allowed(
    site: Front, server: WebServer, trusting: dict[str, str], fetcher: Fetcher
) -> None:
    site.fault(Answer(302, {"Location": f"http://{server.host}/context.tar.gz"}), times=2)
    with pytest.raises(UsageError, match="redirects to"):
        fetcher(f"https://{site.host}/x", trusting)
    assert tree(fetcher(f"https://{site.host}/x", trusting, allow_http=True).path) == FILES


@pytest.mark.parametrize("with_range", [True, False])
@pytest.mark.parametrize("orderly", [True, False])
def test_a_cut_connection_goes_on(
    site: Front, trusting: dict[str, str], fetcher: Fetcher, with_range: bool, orderly: bool
) -> None:
    """By a range, or, where the server knows none, from the start, past what is there."""
    site.fault(CutResponse(2_000_000, orderly))
    if not with_range:
        site.fault(Without("Range"))
    fetched = fetcher(f"https://{site.host}/big.tar", trusting)
    assert fetched.revision == f"sha256:{hashlib.sha256(BIG).hexdigest()}"
    assert tree(fetched.path) == BIG_FILES
    assert "going on from byte" in fetcher.log
    first, second = site.seen
    assert "Range" not in first.headers
    start = int(second.headers["Range"].removeprefix("bytes=").removesuffix("-"))
    assert start == 2_000_000 if orderly else start <= 2_000_000  # a reset overtakes bytes


def test_an_archive_that_changes_half_way_is_not_mixed(
    server: WebServer, site: Front, trusting: dict[str, str], fetcher: Fetcher
) -> None:
    path = server.root / "changing.tar"
    path.write_bytes(BIG)
    site.fault(CutResponse(2_000_000))
    site.fault(Answer(200, {"ETag": '"another"', "Accept-Ranges": "bytes"}, archive_of(FILES)))
    with pytest.raises(ContextError, match="changed while it was fetched"):
        fetcher(f"https://{site.host}/changing.tar", trusting)
    assert os.listdir(fetcher.into) == []


def test_a_server_without_ranges_whose_bytes_change_is_noticed(fetcher: Fetcher) -> None:
    """It sends neither ETag nor time: only the bytes themselves can tell."""
    other = bytearray(BIG)
    other[100_000] ^= 1
    with front("127.0.0.1:1") as server, front(server.host) as site:
        for content in (BIG, bytes(other)):
            server.fault(Answer(200, {}, content))
        site.fault(CutResponse(2_000_000, orderly=True))
        with pytest.raises(ContextError, match="changed while it was fetched"):
            fetcher(f"http://{site.host}/big.tar", allow_http=True)
        assert os.listdir(fetcher.into) == []


def test_attempts_end(site: Front, trusting: dict[str, str], fetcher: Fetcher) -> None:
    site.fault(Answer(503, {"Retry-After": "0"}), times=99)
    with pytest.raises(ContextError, match=f"503 .*{QUICK.attempts} times") as caught:
        fetcher(f"https://{site.host}/context.tar.gz", trusting)
    assert caught.value.transient
    assert site.count("GET") == QUICK.attempts


def test_an_overloaded_server_is_asked_again(site: Front, trusting: dict[str, str], fetcher: Fetcher) -> None:
    site.fault(Answer(429, {"Retry-After": "0"}), times=2)
    assert tree(fetcher(f"https://{site.host}/context.tar.gz", trusting).path) == FILES


def test_a_login_is_asked_for(site: Front, trusting: dict[str, str], fetcher: Fetcher) -> None:
    with pytest.raises(ContextError, match="401 Unauthorized; no credential was sent") as caught:
        fetcher(f"https://{site.host}/private/context.tar", trusting)
    assert "netrc" in caught.value.hint
    assert "--context-header-file" in caught.value.hint


def test_what_is_not_there_is_named(site: Front, trusting: dict[str, str], fetcher: Fetcher) -> None:
    with pytest.raises(ContextError, match=r"https://.*/absent.tar: 404 Not Found, no such archive"):
        fetcher(f"https://{site.host}/absent.tar", trusting)


def netrc_file(tmp_path: Path, text: str) -> str:
    path = tmp_path / "netrc"
    path.write_text(text)
    return str(path)


def test_user_and_password_of_the_url(site: Front, trusting: dict[str, str], fetcher: Fetcher) -> None:
    fetched = fetcher(f"https://user:{PASSWORD}@{site.host}/private/context.tar", trusting)
    assert tree(fetched.path) == FILES
    assert fetched.source == f"https://{site.host}/private/context.tar"
    with pytest.raises(ContextError, match=r"401 .*; the credential was the user in the URL"):
        fetcher(f"https://user:wrong-wrong@{site.host}/private/context.tar", trusting)
    assert PASSWORD not in fetcher.log


def test_netrc(site: Front, trusting: dict[str, str], tmp_path: Path, fetcher: Fetcher) -> None:
    path = netrc_file(tmp_path, f"machine 127.0.0.1 login user password {PASSWORD}\n")
    fetched = fetcher(f"https://{site.host}/private/context.tar", {**trusting, "NETRC": path})
    assert tree(fetched.path) == FILES
    path = netrc_file(tmp_path, "machine 127.0.0.1 login user password wrong-wrong\n")
    with pytest.raises(ContextError, match=f"the credential was {path} for 127.0.0.1"):
        fetcher(f"https://{site.host}/private/context.tar", {**trusting, "NETRC": path})


def test_a_bearer_token_of_netrc(site: Front, trusting: dict[str, str], tmp_path: Path, fetcher: Fetcher) -> None:
    path = netrc_file(tmp_path, "machine 127.0.0.1 password token-token\n")
    fetcher(f"https://{site.host}/context.tar.gz", {**trusting, "NETRC": path})
    assert site.seen[0].headers["Authorization"] == "Bearer token-token"


def test_headers_of_a_file_go_to_their_own_host_only(
    site: Front, server: WebServer, authority: Authority, trusting: dict[str, str], tmp_path: Path, fetcher: Fetcher
) -> None:
    headers = tmp_path / "headers"
    headers.write_text("# for the artifact store\nPRIVATE-TOKEN: token-token\n\nAuthorization: Bearer bearer-bearer\n")
    with front(server.host, tls=authority.server()) as other:
        site.fault(Answer(307, {"Location": f"https://{other.host}/context.tar.gz"}))
        fetched = fetcher(f"https://user:{PASSWORD}@{site.host}/x", trusting, header_file=headers)
        assert tree(fetched.path) == FILES
        sent = site.seen[0].headers
        assert (sent["PRIVATE-TOKEN"], sent["Authorization"]) == ("token-token", "Bearer bearer-bearer")
        assert not {"PRIVATE-TOKEN", "Authorization"} & set(other.seen[0].headers)


def test_a_header_file_that_is_none(tmp_path: Path, trusting: dict[str, str], site: Front, fetcher: Fetcher) -> None:
    path = tmp_path / "headers"
    path.write_text("A: b\nsecret-secret\n")
    with pytest.raises(UsageError, match=r"headers:2 is no header") as caught:
        fetcher(f"https://{site.host}/context.tar.gz", trusting, header_file=path)
    assert "secret-secret" not in str(caught.value)
    with pytest.raises(UsageError, match="No such file"):
        fetcher(f"https://{site.host}/context.tar.gz", trusting, header_file=tmp_path / "absent")


def test_a_proxy_is_used_unless_the_host_is_excepted(server: WebServer, fetcher: Fetcher) -> None:
    location = f"http://{server.host}/context.tar.gz"
    with front(server.host) as proxy:
        environment = {"http_proxy": f"http://{proxy.host}"}
        assert tree(fetcher(location, environment, allow_http=True).path) == FILES
        assert proxy.count("GET", location) == 1
        for exception in ("*", "127.0.0.1", "127.0.0.0/8", "example.com, 127.0.0.1"):
            fetcher(location, {**environment, "no_proxy": exception}, allow_http=True)
        assert proxy.count("GET") == 1


def test_a_proxy_that_wants_a_login(
    server: WebServer, site: Front, trusting: dict[str, str], tmp_path: Path, fetcher: Fetcher
) -> None:
    if reason := tinyproxy.missing():
        pytest.skip(reason)
    with tinyproxy.tinyproxy(tmp_path) as (proxy, log):
        for name, location in (("http_proxy", server.host), ("https_proxy", site.host)):
            scheme = name.partition("_")[0]
            environment = {**trusting, name: f"http://me:secret@{proxy}"}
            fetched = fetcher(f"{scheme}://{location}/context.tar.gz", environment, allow_http=True)
            assert tree(fetched.path) == FILES
        assert f"CONNECT {site.host}" in log.read_text() and f"GET http://{server.host}/" in log.read_text()
        for name, location in (("http_proxy", server.host), ("https_proxy", site.host)):
            with pytest.raises(ContextError, match="401") as caught:
                scheme = name.partition("_")[0]
                environment = {**trusting, name: f"http://me:wrong@{proxy}"}
                fetcher(f"{scheme}://{location}/context.tar.gz", environment, allow_http=True)
            assert "wrong" not in str(caught.value)


def test_nobody_listens(fetcher: Fetcher) -> None:
    with pytest.raises(ContextError, match="Connection refused") as caught:
        fetcher("http://127.0.0.1:1/context.tar", allow_http=True)
    assert caught.value.transient
    assert "object at 0x" not in str(caught.value)
