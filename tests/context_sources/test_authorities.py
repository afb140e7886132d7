"""Everybody who is trusted, in one file."""

from __future__ import annotations

import ssl
from pathlib import Path

from context_sources.authorities import in_one_file
from tests.servers.certificates import Authority


def test_directories_are_added_to_the_bundle(tmp_path: Path) -> None:
    first, second = (Authority(tmp_path / name, name).certificate for name in ("first", "second"))
    directory = tmp_path / "mounted"
    directory.mkdir()
    (directory / "a.crt").write_bytes(second.read_bytes())
    (directory / "same").symlink_to("a.crt")
    (directory / "notes").write_text("not a certificate\n")
    (directory / "..data").mkdir()
    given = {"SSL_CERT_FILE": str(first), "SSL_CERT_DIR": f":/absent:{directory}", "A": "b"}
    made = in_one_file(given, tmp_path / "all.pem")
    assert made == {**given, "SSL_CERT_FILE": str(tmp_path / "all.pem")}
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(made["SSL_CERT_FILE"])
    names = [dict(pair[0] for pair in each["subject"])["commonName"] for each in context.get_ca_certs()]  # type: ignore[misc,call-overload]
    assert sorted(names) == ["first", "second"]


def test_without_certificates_nothing_changes(tmp_path: Path) -> None:
    given = {"SSL_CERT_DIR": f"{tmp_path}:/absent", "SSL_CERT_FILE": "/absent"}
    assert in_one_file(given, tmp_path / "all.pem") is given
    assert not (tmp_path / "all.pem").exists()
