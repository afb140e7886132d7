"""`limpet login`, in a home of its own."""

from __future__ import annotations

import base64
import json
from pathlib import Path

from tests.cli.conftest import Limpet


def auths(directory: Path) -> dict[str, str]:
    config = json.loads((directory / "config.json").read_text())
    return {host: base64.b64decode(entry["auth"]).decode() for host, entry in config["auths"].items()}


def test_a_password_on_standard_input_loses_one_newline(limpet: Limpet, tmp_path: Path) -> None:
    result = limpet("login", "-u", "me", "--password-stdin", "r.example:5000", stdin="pass word\n\r\n")
    assert (result.returncode, result.stdout) == (0, "")
    assert auths(tmp_path / ".docker") == {"r.example:5000": "me:pass word\n"}
    assert "pass word" not in result.stderr


def test_the_place_that_docker_config_names(limpet: Limpet, tmp_path: Path) -> None:
    env = {"DOCKER_CONFIG": str(tmp_path / "there")}
    for registry in ("https://r.example/", "docker.io"):
        assert limpet("login", "--username=me", "--password=secret", registry, env=env).returncode == 0
    assert auths(tmp_path / "there") == {"r.example": "me:secret", "https://index.docker.io/v1/": "me:secret"}
    assert (tmp_path / "there" / "config.json").stat().st_mode & 0o077 == 0


def test_what_is_missing(limpet: Limpet) -> None:
    for argv, fact in (
        (["--username=me", "--password=secret"], "expected one registry"),
        (["--password=secret", "r.example"], "no user name"),
        (["--username=me", "r.example"], "no password"),
        (["--username=me", "--password=secret", "--password-stdin", "r.example"], "exclude each other"),
    ):
        result = limpet("login", *argv)
        assert result.returncode == 1
        assert fact in result.stderr
        assert "secret" not in result.stderr
