"""What holds for archives wherever they are kept: one unpacker, the same limits, the same repair of transfers."""

from __future__ import annotations

import os
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from builder.errors import ContextError
from context_sources import Fetched
from tests.context_sources.conftest import FILES, Fetcher, add, add_file, archive, archive_of, tree
from tests.context_sources.places import (
    Placed,
    Put,
    gzipped,
    in_azure,
    in_directory,
    in_gcs,
    in_registry,
    in_s3,
    on_web_server,
)
from tests.servers import registry as registry_server
from tests.servers import web
from tests.servers.front import CutResponse, front

WITH_SERVER = ("https", "s3", "gcs", "azure", "oci")
KINDS = ("tar", *WITH_SERVER)
MANY = 50_000


@pytest.fixture(scope="module")
def web_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[web.WebServer]:
    if reason := web.missing():
        pytest.skip(reason)
    with web.web_server(tmp_path_factory.mktemp("web")) as running:
        yield running


@pytest.fixture(scope="module")
def registry_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if reason := registry_server.missing():
        pytest.skip(reason)
    with registry_server.docker_registry(tmp_path_factory.mktemp("registry")) as running:
        yield running.host


@pytest.fixture(scope="module")
def places() -> dict[str, tuple[Put, str]]:
    """Those that were asked for already."""
    return {}


@pytest.fixture
def place(
    request: pytest.FixtureRequest,
    places: dict[str, tuple[Put, str]],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Put, str]:
    """The place of the kind that the test's parameter names, and its server's host."""
    kind = request.param
    if kind not in places:
        if kind == "tar":
            places[kind] = in_directory(tmp_path_factory.mktemp("archives")), ""
        elif kind == "https":
            server = request.getfixturevalue("web_host")
            places[kind] = on_web_server(server.root, server.host), server.host
        elif kind == "s3":
            places[kind] = in_s3(request.getfixturevalue("s3")), request.getfixturevalue("s3").host
        elif kind == "gcs":
            places[kind] = in_gcs(request.getfixturevalue("gcs")), request.getfixturevalue("gcs")
        elif kind == "azure":
            azurite = request.getfixturevalue("azure")
            places[kind] = in_azure(azurite), azurite.url.split("/")[2]
        else:
            host = request.getfixturevalue("registry_host")
            places[kind] = in_registry(host), host
    return places[kind]


everywhere = pytest.mark.parametrize("place", KINDS, indirect=True)
over_the_network = pytest.mark.parametrize("place", WITH_SERVER, indirect=True)


def get(fetcher: Fetcher, placed: Placed, **changes: object) -> Fetched:
    environment = {"PATH": os.environ["PATH"], **placed.environment}
    return fetcher(placed.location, environment, **{**placed.settings, **changes})


HOSTILE: dict[str, tuple[Callable[[tarfile.TarFile], object], str]] = {
    "traversal": (lambda tar: add_file(tar, "a/../../outside/file", b"x"), "leads out of the context"),
    "absolute": (lambda tar: add_file(tar, "/outside/file", b"x"), "is absolute"),
    "symlink": (
        lambda tar: (add(tar, "d", tarfile.SYMTYPE, "../outside"), add_file(tar, "d/file", b"x")),
        "lies below d, which is no directory",
    ),
    "hardlink": (lambda tar: add(tar, "h", tarfile.LNKTYPE, "../outside/file"), "leads out of the context"),
    "device": (lambda tar: add(tar, "dev/null", tarfile.CHRTYPE), "is a character device"),
    "bomb": (lambda tar: add_file(tar, "zeros", bytes(300 << 20)), r"expands to more than 200 times its size"),
}


@pytest.fixture(scope="module")
def hostile() -> dict[str, bytes]:
    return {name: gzipped(archive(write)) for name, (write, _) in HOSTILE.items()}


@everywhere
def test_hostile_archives(place: tuple[Put, str], hostile: dict[str, bytes], fetcher: Fetcher) -> None:
    outside = fetcher.root / "outside"
    outside.mkdir()
    (outside / "file").write_text("untouched")
    for name, data in hostile.items():
        with pytest.raises(ContextError, match=HOSTILE[name][1]):
            get(fetcher, place[0](f"{name}.tgz", data, ""))
        assert os.listdir(fetcher.into) == [], name
        assert {entry.name: entry.read_text() for entry in outside.iterdir()} == {"file": "untouched"}


@everywhere
def test_archives_with_nothing_in_them(place: tuple[Put, str], fetcher: Fetcher) -> None:
    put, _ = place
    assert tree(get(fetcher, put("nothing.tar", archive_of({}), "")).path) == {}
    assert tree(get(fetcher, put("nothing.tgz", gzipped(archive_of({})), "")).path) == {}
    with pytest.raises(ContextError, match=r"is empty: 0 bytes|is cut off"):
        get(fetcher, put("zero-bytes.tar", b"", ""))


@everywhere
def test_sub_paths_do_not_leave_the_context(place: tuple[Put, str], fetcher: Fetcher) -> None:
    def write(tar: tarfile.TarFile) -> None:
        add_file(tar, "app/Dockerfile", b"FROM scratch\n")
        add_file(tar, "Dockerfile", b"FROM other\n")
        add(tar, "out", tarfile.SYMTYPE, "/etc")

    placed = place[0]("nested.tar", archive(write), "")
    assert tree(get(fetcher, placed, sub_path="app").path) == {"Dockerfile": b"FROM scratch\n"}
    for outside in ("..", "app/../..", "out"):
        with pytest.raises(ContextError, match="leads out of the context"):
            get(fetcher, placed, sub_path=outside)
    with pytest.raises(ContextError, match="No such file or directory in the context"):
        get(fetcher, placed, sub_path="absent")


@over_the_network
def test_a_cut_connection_goes_on_by_range(
    request: pytest.FixtureRequest, place: tuple[Put, str], fetcher: Fetcher
) -> None:
    put, host = place
    files = {**FILES, "big": os.urandom(20 << 20)}
    kind = request.node.callspec.params["place"]
    path = {"gcs": "/download/", "oci": "/blobs/"}.get(kind, "cut.tar")
    with front(host) as site:
        placed = put("cut.tar", archive_of(files), site.host)
        site.fault(CutResponse(2_000_000, orderly=True), "GET", path)
        assert tree(get(fetcher, placed).path) == files
        ranges = [seen.headers.get("Range", "") for seen in site.seen]
    assert [text for text in ranges if text.startswith("bytes=") and not text.startswith("bytes=0-")]


@everywhere
def test_many_small_files(place: tuple[Put, str], many: bytes, fetcher: Fetcher) -> None:
    path = get(fetcher, place[0]("many.tgz", many, "")).path
    assert sum(len(names) for _, _, names in os.walk(path)) == MANY
    assert (path / "499" / "49999").read_text() == "49999"


@pytest.fixture(scope="module")
def many() -> bytes:
    def write(tar: tarfile.TarFile) -> None:
        for number in range(MANY):
            add_file(tar, f"{number // 100}/{number}", str(number).encode())

    return gzipped(archive(write))


def test_a_git_repository_of_many_small_files(tmp_path: Path, fetcher: Fetcher) -> None:
    program = ["git", "fast-import", "--quiet"]
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(tmp_path / "many.git")], check=True)
    lines = [b"commit refs/heads/main\ncommitter T <t@example.com> 0 +0000\ndata 1\nm"]
    for number in range(MANY):
        lines.append(b"M 100644 inline %d/%d\ndata %d\n%d" % (number // 100, number, len(str(number)), number))
    subprocess.run(program, cwd=tmp_path / "many.git", input=b"\n".join(lines) + b"\n", check=True)
    path = fetcher(f"git+file://{tmp_path}/many.git").path
    assert sum(len(names) for _, _, names in os.walk(path)) == MANY
