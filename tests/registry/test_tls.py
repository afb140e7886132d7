"""Which registries are trusted, and who may be spoken with in clear text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from builder.errors import RegistryError, UsageError
from builder.oci.reference import Reference
from builder.registry.repository import Repository
from builder.registry.settings import ClientCertificate, Direction, RegistrySettings, is_loopback
from tests.registry.conftest import Connect
from tests.servers.certificates import Authority, Pair
from tests.servers.front import front
from tests.servers.registry import RegistryServer, free_port

Start = Callable[..., RegistryServer]


@pytest.fixture(scope="session")
def pair(authority: Authority) -> tuple[Path, Path]:
    made = authority.server()
    return made.certificate, made.key


@pytest.fixture
def secure(registry: Start, pair: tuple[Path, Path]) -> RegistryServer:
    return registry(certificate=pair)


def repository(connect: Connect, host: str, direction: Direction = "push", **settings: Any) -> Repository:
    environ = settings.pop("environ", None)
    return connect(environ, **{"retries": 0, **settings}).repository(Reference.parse(f"{host}/app"), direction)


def reach(where: Repository) -> None:
    """A request that succeeds in both directions on an empty registry."""
    assert where.has_blob("sha256:" + "0" * 64) is False


@pytest.mark.parametrize("direction", ["pull", "push"])
def test_an_unknown_authority_is_refused(secure: RegistryServer, connect: Connect, direction: Direction) -> None:
    with pytest.raises(RegistryError, match=f"the certificate of {secure.host} is not trusted") as caught:
        reach(repository(connect, secure.host, direction))
    assert f"--registry-certificate={secure.host}=" in caught.value.hint
    assert f"--skip-tls-verify-registry={secure.host}" in caught.value.hint
    assert not caught.value.transient


def test_a_loopback_registry_with_an_unknown_certificate_is_not_spoken_to_in_clear_text(
    secure: RegistryServer, connect: Connect
) -> None:
    with pytest.raises(RegistryError, match="is not trusted"):
        reach(repository(connect, secure.host, insecure=True))


@pytest.mark.parametrize("direction", ["pull", "push"])
def test_an_authority_of_ones_own(
    secure: RegistryServer, connect: Connect, authority: Authority, direction: Direction
) -> None:
    reach(repository(connect, secure.host, direction, certificates={secure.host: authority.certificate}))


def test_an_authority_counts_for_its_registry_only(
    secure: RegistryServer, connect: Connect, authority: Authority
) -> None:
    for other in ("other.example", secure.host.replace("127.0.0.1", "localhost")):
        with pytest.raises(RegistryError, match="is not trusted"):
            reach(repository(connect, secure.host, certificates={other: authority.certificate}))


def test_authorities_of_the_environment(
    secure: RegistryServer, connect: Connect, authority: Authority, tmp_path: Path
) -> None:
    """As Go reads them: every file of a directory, whatever its name."""
    reach(repository(connect, secure.host, environ={"SSL_CERT_FILE": str(authority.certificate)}))
    (tmp_path / "certs").mkdir()
    (tmp_path / "certs/additional").write_bytes(authority.certificate.read_bytes())
    (tmp_path / "certs/README").write_text("no certificate")
    reach(repository(connect, secure.host, environ={"SSL_CERT_DIR": f"/nowhere:{tmp_path}/certs"}))


def test_skipping_is_by_direction(secure: RegistryServer, connect: Connect) -> None:
    reach(repository(connect, secure.host, "push", skip_tls_verify=True))
    reach(repository(connect, secure.host, "pull", skip_tls_verify_pull=True))
    for direction, setting in (("pull", "skip_tls_verify"), ("push", "skip_tls_verify_pull")):
        with pytest.raises(RegistryError, match="is not trusted"):
            reach(repository(connect, secure.host, direction, **{setting: True}))


@pytest.mark.parametrize("direction", ["pull", "push"])
def test_skipping_by_registry(secure: RegistryServer, connect: Connect, direction: Direction) -> None:
    reach(repository(connect, secure.host, direction, skip_tls_verify_registries=frozenset({secure.host})))
    with pytest.raises(RegistryError, match="is not trusted"):
        reach(repository(connect, secure.host, direction, skip_tls_verify_registries=frozenset({"127.0.0.1"})))


def test_a_certificate_for_another_name(registry: Start, connect: Connect, authority: Authority) -> None:
    other = authority.server("other.example")
    server = registry(certificate=(other.certificate, other.key))
    with pytest.raises(RegistryError, match=r"is not trusted while .*127\.0\.0\.1"):
        reach(repository(connect, server.host, certificates={server.host: authority.certificate}))


def test_client_certificates(registry: Start, connect: Connect, authority: Authority, pair: tuple[Path, Path]) -> None:
    server = registry(certificate=pair, client_authority=authority.certificate)
    trust = {server.host: authority.certificate}
    with pytest.raises(RegistryError) as caught:
        reach(repository(connect, server.host, certificates=trust))
    assert f"--registry-client-cert={server.host}=CERT,KEY" in caught.value.hint
    mine = authority.client("builder")
    shown = {server.host: ClientCertificate(mine.certificate, mine.key)}
    reach(repository(connect, server.host, certificates=trust, client_certificates=shown))
    with pytest.raises(RegistryError):
        reach(
            repository(
                connect, server.host, certificates=trust, client_certificates={"other.example": shown[server.host]}
            )
        )


def test_certificate_files_that_cannot_be_used(
    secure: RegistryServer, connect: Connect, authority: Authority, tmp_path: Path
) -> None:
    (tmp_path / "bad.pem").write_text("hello")
    for file, words in (("bad.pem", "not a PEM file"), ("none.pem", "No such file")):
        with pytest.raises(UsageError, match=f"--registry-certificate for {secure.host}: .*{words}"):
            reach(repository(connect, secure.host, certificates={secure.host: tmp_path / file}))
        pair = ClientCertificate(authority.certificate, tmp_path / file)
        with pytest.raises(UsageError, match=f"--registry-client-cert for {secure.host}: .*{words}"):
            reach(repository(connect, secure.host, skip_tls_verify=True, client_certificates={secure.host: pair}))


def test_clear_text_on_loopback_needs_no_flag(plain: RegistryServer, connect: Connect) -> None:
    reach(repository(connect, plain.host))
    reach(repository(connect, plain.host.replace("127.0.0.1", "localhost")))


def test_clear_text_asks_for_no_authorities(plain: RegistryServer, connect: Connect, tmp_path: Path) -> None:
    """To read them takes longer than a build that has nothing to do."""
    reach(repository(connect, plain.host, environ={"SSL_CERT_FILE": str(tmp_path / "none.pem")}))


def test_clear_text_elsewhere_needs_one() -> None:
    """An address of this machine that is not loopback would need a second network; the rule is what matters."""
    settings = RegistrySettings()
    assert not settings.allows_http("registry.example.com", "push")
    assert not settings.allows_http("10.0.0.1:5000", "pull")  # kaniko speaks clear text with private addresses
    both = RegistrySettings(insecure_registries=frozenset({"registry.example.com:80", "docker.io"}))
    for direction in ("pull", "push"):
        assert both.allows_http("registry.example.com:80", direction)
        assert not both.allows_http("registry.example.com", direction)
        assert both.allows_http("index.docker.io", direction)
    assert RegistrySettings(insecure=True).allows_http("r.example", "push")
    assert not RegistrySettings(insecure=True).allows_http("r.example", "pull")
    assert RegistrySettings(insecure_pull=True).allows_http("r.example", "pull")
    assert not RegistrySettings(insecure_pull=True).allows_http("r.example", "push")


def test_a_fixed_scheme(plain: RegistryServer, connect: Connect) -> None:
    reference = Reference.parse(f"{plain.host}/app")
    reach(connect().repository(reference, "pull", "http"))
    with pytest.raises(RegistryError, match="does not speak TLS") as caught:
        reach(connect(retries=0).repository(reference, "pull", "https"))
    assert "--insecure-registry" in caught.value.hint


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("localhost:5000", True),
        ("registry.localhost", True),
        ("127.0.0.1:80", True),
        ("127.8.9.1", True),
        ("[::1]:5000", True),
        ("[::1]", True),
        ("10.0.0.1", False),
        ("192.168.0.1:5000", False),
        ("localhost.example.com", False),
        ("registry.example.com:5000", False),
        ("[fe80::1]:80", False),
    ],
)
def test_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


def test_uploads_of_a_registry_that_thinks_it_speaks_http(
    registry: Start, connect: Connect, authority: Authority, pair: tuple[Path, Path]
) -> None:
    """A proxy ends TLS; the registry behind it says Location: http://..., and credentials must not go there."""
    server = registry(relative_urls=False, users={"me": "secret"})
    with front(server.host, tls=Pair(*pair)) as tls:
        environ = {
            f"KANIKO_{tls.host.replace('.', '_').replace(':', '_')}_{part}": value
            for part, value in (("USER", "me"), ("PASSWORD", "secret"))
        }
        where = repository(connect, tls.host, environ=environ, certificates={tls.host: authority.certificate})
        where.check_push()
        assert [seen.method for seen in tls.seen if "/uploads/" in seen.path][-1] == "DELETE"


def test_a_port_that_nobody_listens_at(connect: Connect) -> None:
    with pytest.raises(RegistryError, match="Connection refused"):
        reach(repository(connect, f"127.0.0.1:{free_port()}"))
