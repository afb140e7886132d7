"""SOURCE_DATE_EPOCH named after a source: the time that git or a web server gives it."""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Limpet
from tests.cli.test_origins import blob, git, make_repository
from tests.servers.git_daemon import git_daemon
from tests.servers.web import WebServer, missing, web_server

TIME, CREATED = 1_500_000_000, "2017-07-14T02:40:00Z"


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebServer]:
    if missing():
        pytest.skip(missing())
    with web_server(tmp_path_factory.mktemp("web")) as server:
        yield server


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The context, a git repository with one commit of TIME; its directory is as old as that, too."""
    with monkeypatch.context() as patch:
        patch.setenv("GIT_COMMITTER_DATE", f"{TIME} +0000")
        directory = make_repository(tmp_path / "context", "FROM scratch\nCOPY a /\n")
    os.utime(directory, (TIME, TIME))
    return directory


def created(limpet: Limpet, out: Path, *arguments: str) -> str:
    """When the image of a build says it was made."""
    done = limpet("--no-push", f"--oci-layout-path={out}", *arguments)
    assert done.returncode == 0, done.stderr
    manifest = blob(out, json.loads((out / "index.json").read_text())["manifests"][0])
    config: dict[str, Any] = blob(out, manifest["config"])
    return str(config["created"])


CONTEXT = "--build-arg=SOURCE_DATE_EPOCH=context"


def test_a_directory_has_no_time(limpet: Limpet, context: Path, tmp_path: Path) -> None:
    assert created(limpet, tmp_path / "out", f"--context={context}", CONTEXT) > "2026"


def test_a_git_context_has_that_of_its_commit(limpet: Limpet, context: Path, tmp_path: Path) -> None:
    assert created(limpet, tmp_path / "out", f"--context=git+file://{context}", CONTEXT) == CREATED


def test_an_archive_has_that_of_its_server(limpet: Limpet, context: Path, web: WebServer, tmp_path: Path) -> None:
    with tarfile.open(web.root / "context.tar", "w") as archive:
        archive.add(context, ".")
    os.utime(web.root / "context.tar", (TIME, TIME))
    address = f"--context=http://{web.host}/context.tar"
    assert created(limpet, tmp_path / "out", address, "--context-allow-http", CONTEXT) == CREATED


def test_a_stage_has_that_of_what_it_adds(limpet: Limpet, context: Path, web: WebServer, tmp_path: Path) -> None:
    (web.root / "file").write_text("file")
    os.utime(web.root / "file", (TIME, TIME))
    git(tmp_path, "clone", "-q", "--bare", str(context), "repository.git")
    with git_daemon(tmp_path) as host:
        for number, source in enumerate((f"http://{web.host}/file", f"git://{host}/repository.git")):
            (context / "Dockerfile").write_text(f"FROM scratch AS source\nADD {source} /\nFROM scratch\nCOPY a /\n")
            arguments = (f"--context={context}", "--build-arg=SOURCE_DATE_EPOCH=source")
            assert created(limpet, tmp_path / f"out{number}", *arguments) == CREATED
