"""HTTP_PROXY and its relatives, and what requests say of themselves."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from builder import __version__
from builder.errors import RegistryError
from builder.oci.reference import Reference
from builder.registry.connections import Proxies
from tests.registry.conftest import Connect
from tests.servers.front import Front
from tests.servers.registry import RegistryServer, free_port
from tests.servers.tinyproxy import missing, tinyproxy


@pytest.mark.parametrize(
    ("url", "no_proxy", "used"),
    [
        ("https://r.example/v2/", "", True),
        ("https://r.example/v2/", "*", False),
        ("https://r.example/v2/", "r.example", False),
        ("https://r.example/v2/", "example", False),
        ("https://r.example/v2/", ".example", False),
        ("https://r.example/v2/", "*.example", False),
        ("https://r.example/v2/", "other, R.Example", False),
        ("https://r.example/v2/", "r.example.com", True),
        ("https://rr.example/v2/", "r.example", True),
        ("https://r.example:5000/v2/", "r.example:5000", False),
        ("https://r.example:5001/v2/", "r.example:5000", True),
        ("https://10.1.2.3/v2/", "10.0.0.0/8", False),
        ("https://11.1.2.3/v2/", "10.0.0.0/8", True),
        ("https://r.example/v2/", "10.0.0.0/8", True),
        ("https://10.1.2.3/v2/", "10.1.2.3", False),
        ("https://[fd00::1]/v2/", "fd00::/8", False),
        ("https://127.0.0.1:5000/v2/", "", False),
        ("https://localhost/v2/", "", False),
        ("https://[::1]:5000/v2/", "", False),
        ("http://r.example/v2/", "", True),
    ],
)
def test_who_is_asked_through_a_proxy(url: str, no_proxy: str, used: bool) -> None:
    proxies = Proxies.of({"HTTPS_PROXY": "http://p:1", "HTTP_PROXY": "http://p:1", "NO_PROXY": no_proxy})
    assert proxies.for_url(url) == ("http://p:1" if used else None)


def test_variables() -> None:
    proxies = Proxies.of({"HTTPS_PROXY": "http://upper", "https_proxy": "http://lower", "ALL_PROXY": "http://all"})
    assert proxies.for_url("https://r.example") == "http://lower"
    assert proxies.for_url("http://r.example") == "http://all"
    assert Proxies.of({}).for_url("https://r.example") is None
    assert Proxies.of({"HTTP_PROXY": "proxy:3128"}).for_url("http://r.example") == "http://proxy:3128"


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A tinyproxy that wants a password, and its log."""
    if reason := missing():
        pytest.skip(reason)
    with tinyproxy(tmp_path) as running:
        yield running


@contextlib.contextmanager
def own_address() -> Iterator[str]:
    """An address of this machine that is not loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            pytest.skip("this machine has no address but loopback")
        yield probe.getsockname()[0]


def test_through_a_real_proxy(
    proxy: tuple[str, Path], connect: Connect, registry: Callable[..., RegistryServer]
) -> None:
    """Loopback is never asked through a proxy, so the registry is named by another address of this machine."""
    address, log = proxy
    with own_address() as own:
        server = registry(listen="0.0.0.0")
        host = server.host.replace("127.0.0.1", own)
        reference = Reference.parse(f"{host}/app")
        settings = {"insecure": True, "retries": 0}
        environ = {"http_proxy": f"http://me:secret@{address}", "https_proxy": f"http://me:secret@{address}"}
        assert connect(environ, **settings).repository(reference, "push").has_blob("sha256:" + "0" * 64) is False
        assert own in log.read_text()
        wrong = {"http_proxy": f"http://me:wrong-one@{address}"}
        with pytest.raises(RegistryError, match=r"40[17]") as caught:
            connect(wrong, **settings).repository(reference, "push").check_push()
        assert "wrong-one" not in f"{caught.value.message}{caught.value.hint}"


def test_a_proxy_that_is_not_there(connect: Connect) -> None:
    environ = {"https_proxy": f"http://me:secret-word@127.0.0.1:{free_port()}"}
    with pytest.raises(RegistryError, match="the proxy does not connect") as caught:
        connect(environ, retries=0).repository(Reference.parse("r.example/app"), "push").check_push()
    assert "secret-word" not in f"{caught.value.message}{caught.value.hint}"


def test_the_user_agent(plain: RegistryServer, troubled: Callable[..., Front], connect: Connect) -> None:
    front = troubled(plain.host)
    for client_type, expected in (("", f"limpet/{__version__}"), ("tekton", f"limpet/{__version__},tekton")):
        front.seen.clear()
        connect(client_type=client_type).repository(Reference.parse(f"{front.host}/app"), "push").check_push()
        assert {seen.headers["User-Agent"] for seen in front.seen} == {expected}
