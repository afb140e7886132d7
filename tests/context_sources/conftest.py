"""Contexts to fetch, the servers they come from, and a fetcher that remembers what was said."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from context_sources import Fetched, FetchSettings, Retry, fetch
from tests.servers import azurite as azurite_server
from tests.servers import fake_gcs as fake_gcs_server
from tests.servers import seaweedfs as seaweedfs_server
from tests.servers.azurite import AzuriteServer
from tests.servers.certificates import Authority
from tests.servers.seaweedfs import S3Server

QUICK = Retry(attempts=4, delay=0.01)
FILES = {"Dockerfile": b"FROM scratch\nCOPY . /\n", "src/main.c": b"int main(void) { return 0; }\n", "empty": b""}


@dataclass
class Fetcher:
    """Fetches into new directories below `root`, and keeps the log and the progress of all that it fetched."""

    root: Path
    lines: list[str] = field(default_factory=list)
    progress: list[tuple[int, int]] = field(default_factory=list)
    into: Path = Path()

    def __call__(self, location: str, environment: Mapping[str, str] | None = None, **changes: Any) -> Fetched:
        self.into = self.root / f"context-{len(os.listdir(self.root))}"
        self.into.mkdir()
        settings = FetchSettings(
            environment=environment if environment is not None else {"PATH": os.environ["PATH"]},
            log=lambda level, text: self.lines.append(f"{level} {text}"),
            progress=lambda done, total: self.progress.append((done, total)),
            **{"retry": QUICK, **changes},
        )
        return fetch(location, self.into, settings)

    @property
    def log(self) -> str:
        return "\n".join(self.lines)


@pytest.fixture
def fetcher(tmp_path: Path) -> Fetcher:
    root = tmp_path / "fetched"
    root.mkdir()
    return Fetcher(root)


def archive_of(files: Mapping[str, bytes]) -> bytes:
    """A plain tar archive of regular files."""
    return archive(lambda tar: [add_file(tar, name, data) for name, data in files.items()])


def archive(write: Callable[[tarfile.TarFile], object]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        write(tar)
    return buffer.getvalue()


def add_file(tar: tarfile.TarFile, name: str, data: bytes = b"", mode: int = 0o644, mtime: float = 1e9) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = len(data), mode, mtime
    tar.addfile(info, io.BytesIO(data))


def add(tar: tarfile.TarFile, name: str, kind: bytes, link: str = "", mode: int = 0o755) -> None:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode, info.mtime = kind, link, mode, 1e9
    tar.addfile(info)


def tree(root: Path) -> dict[str, bytes]:
    """The regular files below `root`."""
    return {
        os.path.relpath(os.path.join(directory, name), root): Path(directory, name).read_bytes()
        for directory, _, names in os.walk(root)
        for name in names
        if not os.path.islink(os.path.join(directory, name))
    }


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    if reason := seaweedfs_server.missing():
        pytest.skip(reason)
    with seaweedfs_server.seaweedfs(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(scope="session")
def gcs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if reason := fake_gcs_server.missing():
        pytest.skip(reason)
    with fake_gcs_server.fake_gcs(tmp_path_factory.mktemp("gcs")) as host:
        yield host


@pytest.fixture(scope="session")
def azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AzuriteServer]:
    if reason := azurite_server.missing():
        pytest.skip(reason)
    with azurite_server.azurite(tmp_path_factory.mktemp("azure")) as server:
        yield server


def git(*arguments: str, cwd: Path, **environment: str) -> str:
    """Run git for the author Test, without anybody's configuration."""
    fixed = {
        "PATH": os.environ["PATH"],
        "HOME": "/nonexistent",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_AUTHOR_NAME": "Test",
        "GIT_AUTHOR_EMAIL": "test@example.com",
        "GIT_COMMITTER_NAME": "Test",
        "GIT_COMMITTER_EMAIL": "test@example.com",
        "GIT_AUTHOR_DATE": "2024-01-01T00:00:00Z",
        "GIT_COMMITTER_DATE": "2024-01-01T00:00:00Z",
        "GIT_ALLOW_PROTOCOL": "file:http:https:ssh",
    }
    done = subprocess.run(
        ["git", *arguments], cwd=cwd, env={**fixed, **environment}, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@dataclass(frozen=True)
class Repository:
    """A bare repository with three commits. `first` is tagged v1; `main` is the second; `dev`, tagged v2, the third.

    refs/pull/7/head is a commit in no branch.
    """

    path: Path
    first: str
    main: str
    dev: str
    pull: str


def make_repository(path: Path, work: Path, extra: Callable[[Path], None] | None = None) -> Repository:
    """`extra` may change the work tree before the first commit."""
    work.mkdir(parents=True)
    git("init", "-q", "-b", "main", cwd=work)
    for name, data in FILES.items():
        (work / name).parent.mkdir(exist_ok=True)
        (work / name).write_bytes(data)
    (work / "run.sh").write_text("#!/bin/sh\n")
    (work / "run.sh").chmod(0o755)
    (work / "link").symlink_to("src/main.c")
    (work / "version").write_text("1")
    if extra is not None:
        extra(work)

    def commit(version: str) -> str:
        (work / "version").write_text(version)
        git("add", "-A", cwd=work)
        git("commit", "-q", "--allow-empty", "-m", version, cwd=work)
        return git("rev-parse", "HEAD", cwd=work)

    first = commit("1")
    git("tag", "v1", cwd=work)
    main = commit("2")
    git("checkout", "-q", "-b", "dev", cwd=work)
    dev = commit("dev")
    git("tag", "-a", "v2", "-m", "annotated", cwd=work)
    git("checkout", "-q", "--detach", "main", cwd=work)
    pull = commit("pull")
    git("update-ref", "refs/pull/7/head", pull, cwd=work)
    git("checkout", "-q", "main", cwd=work)
    path.parent.mkdir(parents=True, exist_ok=True)
    git("clone", "-q", "--mirror", str(work), str(path), cwd=work)
    git("update-server-info", cwd=path)
    return Repository(path, first, main, dev, pull)
