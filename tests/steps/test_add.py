"""ADD: archives made by the usual programs, a web server, git repositories."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import os
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from builder.dockerfile.git_reference import GitReference
from builder.errors import BuildError, ContextError, DockerfileError
from builder.rootfs.entry import Entry, FileType
from builder.rootfs.layered import LayeredTree
from builder.rootfs.tree import Tree
from builder.steps.add import AddSettings, add_changes
from builder.steps.context import ContextTree
from builder.steps.download import Downloads, download, file_name
from builder.steps.step import HeredocFile
from builder.urls import redacted
from tests.steps.trees import NOW, SETTINGS, add_step, directory, file, image, listing, symlink, text, tree

MTIME = 1_500_000_000 * 10**9


@pytest.fixture
def context(tmp_path: Path) -> Path:
    (tmp_path / "context").mkdir()
    return tmp_path / "context"


def added(context: Path, destination: Tree, *sources: str, to: str = "/o/", **fields: Any) -> LayeredTree:
    work = context.parent / "work"
    work.mkdir(exist_ok=True)
    fetch_git = fields.pop("fetch_git", None)
    step = add_step(*sources, to=to, **fields)
    changes = add_changes(step, ContextTree(context), destination, SETTINGS, AddSettings(work, fetch_git))
    return LayeredTree().apply(listing(destination).values()).apply(changes)


def failure(context: Path, destination: Tree, *sources: str, **fields: Any) -> BuildError:
    with pytest.raises((DockerfileError, ContextError)) as caught:
        added(context, destination, *sources, **fields)
    return caught.value


class Archive:
    """A tar, entry by entry, as no program would write it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tar = tarfile.open(path, "w", format=tarfile.PAX_FORMAT)  # noqa: SIM115

    def add(self, name: str, kind: bytes = tarfile.REGTYPE, data: str = "", **fields: Any) -> Archive:
        member = tarfile.TarInfo(name)
        member.type, member.size, member.mtime = kind, len(data), MTIME // 10**9
        for field, value in fields.items():
            setattr(member, field, value)
        self.tar.addfile(member, io.BytesIO(data.encode()))
        return self

    def close(self) -> str:
        self.tar.close()
        return self.path.name


class TestArchives:
    @pytest.mark.parametrize("program", ["", "gzip", "bzip2", "xz", "zstd"])
    def test_compressions(self, context: Path, program: str) -> None:
        content = context / "content"
        (content / "d").mkdir(parents=True)
        (content / "d" / "f").write_text("text")
        os.link(content / "d" / "f", content / "d" / "h")
        os.symlink("f", content / "d" / "l")
        compress = [f"--use-compress-program={program}"] if program else []
        owner = ["--owner=7", "--group=8", "--numeric-owner", "--mtime=@1500000000"]
        subprocess.run(["tar", *compress, *owner, "-C", str(content), "-cf", str(context / "noext"), "."], check=True)
        shown = listing(added(context, tree(directory("o", 0o700)), "noext"), "o")
        assert list(shown) == ["o/d", "o/d/f", "o/d/h", "o/d/l"]
        assert (shown["o/d/f"].uid, shown["o/d/f"].gid, shown["o/d/f"].mtime) == (7, 8, MTIME)
        assert shown["o/d/h"].target == "same file as o/d/f"
        assert shown["o/d/l"].target == "f"
        assert text(shown["o/d/f"]) == "text"

    def test_the_directory_itself_stays_as_it_is(self, context: Path) -> None:
        name = Archive(context / "a").add("./", tarfile.DIRTYPE, mode=0o700, uid=5).add("./x").close()
        assert added(context, tree(directory("o", 0o711)), name).entry("o") == directory("o", 0o711)

    def test_what_is_no_archive_is_copied(self, context: Path) -> None:
        (context / "text.tar.gz").write_text("text")
        (context / "empty.tar").touch()
        (context / "zeros.tar").write_bytes(bytes(10240))
        (context / "text.tar.gz.gz").write_bytes(gzip.compress(b"text"))
        result = added(context, tree(), "*")
        assert result.names("o") == ["empty.tar", "text.tar.gz", "text.tar.gz.gz", "zeros.tar"]

    def test_unpack_says_otherwise(self, context: Path) -> None:
        name = Archive(context / "a.tar").add("x", data="text").close()
        assert added(context, tree(), name, unpack=False).names("o") == ["a.tar"]
        assert added(context, tree(), name, unpack=True).names("o") == ["x"]

    def test_owner_replaces_all_and_mode_none(self, context: Path) -> None:
        name = Archive(context / "a").add("d/x", uid=5, mode=0o640).add("l", tarfile.SYMTYPE, linkname="d/x").close()
        shown = listing(added(context, image(), name, chown="bob", chmod="0777"), "o")
        assert {(entry.uid, entry.gid) for path, entry in shown.items() if path != "o/d"} == {(1000, 1001)}
        assert shown["o/d"] == directory("o/d", mtime=NOW)  # the archive has no entry for it
        assert shown["o/d/x"].mode == 0o640

    def test_nothing_leaves_the_directory(self, context: Path) -> None:
        name = (
            Archive(context / "a")
            .add("../../up", data="1")
            .add("/abs", data="2")
            .add("link", tarfile.SYMTYPE, linkname="/inside")
            .add("inside/", tarfile.DIRTYPE)
            .add("link/x", data="3")
            .add("hard", tarfile.LNKTYPE, linkname="../../up")
            .close()
        )
        result = added(context, tree(file("up", "outside"), directory("inside")), name)
        assert sorted(listing(result)) == [
            "inside", "o", "o/abs", "o/hard", "o/inside", "o/inside/x", "o/link", "o/up", "up",
        ]  # fmt: skip
        assert text(result.entry("up")) == "outside"

    def test_a_link_to_nowhere_in_the_way(self, context: Path) -> None:
        name = Archive(context / "a").add("l", tarfile.SYMTYPE, linkname="/etc").add("l/x").close()
        error = failure(context, tree(directory("etc")), name)
        assert "/l is a symbolic link that leads nowhere" in error.message
        assert "--unpack=false" in error.hint

    def test_whiteout_names_are_names(self, context: Path) -> None:
        name = Archive(context / "a").add(".wh.x").add("d/.wh..wh..opq").close()
        result = added(context, tree(directory("o"), file("o/x")), name)
        assert sorted(listing(result, "o")) == ["o/.wh.x", "o/d", "o/d/.wh..wh..opq", "o/x"]

    def test_files_and_directories_replace_each_other(self, context: Path) -> None:
        name = (
            Archive(context / "a").add("d", data="file").add("f/", tarfile.DIRTYPE).add("l/", tarfile.DIRTYPE).close()
        )
        before = tree(directory("o"), directory("o/d"), file("o/d/x"), file("o/f"), symlink("o/l", "d"))
        result = added(context, before, name)
        assert sorted(listing(result, "o")) == ["o/d", "o/f", "o/l"]
        assert [result.entry(path).type for path in ("o/d", "o/f", "o/l")] == [  # type: ignore[union-attr]
            FileType.FILE, FileType.DIRECTORY, FileType.DIRECTORY,
        ]  # fmt: skip

    def test_a_link_to_a_file_of_the_image(self, context: Path) -> None:
        name = Archive(context / "a").add("h", tarfile.LNKTYPE, linkname="x", mode=0o600).close()
        result = added(context, tree(directory("o"), file("o/x", "below")), name)
        assert text(result.entry("o/h")) == "below"
        assert listing(result)["o/x"].mode == 0o600  # one file
        assert "does not exist" in failure(context, tree(), name).message

    def test_the_last_of_two_entries_counts(self, context: Path) -> None:
        name = (
            Archive(context / "a")
            .add("x", data="one")
            .add("h", tarfile.LNKTYPE, linkname="x")
            .add("x", data="2")
            .close()
        )
        result = added(context, tree(), name)
        assert (text(result.entry("o/x")), text(result.entry("o/h"))) == ("2", "one")

    def test_attributes(self, context: Path) -> None:
        headers = {"SCHILY.xattr.user.a": "b", "SCHILY.xattr.security.selinux": "label"}
        name = Archive(context / "a").add("x", pax_headers=headers).close()
        found = added(context, tree(), name).entry("o/x")
        assert found is not None
        assert found.xattrs == {"user.a": b"b"}

    def test_a_sparse_file_stays_sparse(self, context: Path) -> None:
        with (context / "sparse").open("wb") as big:
            big.seek(64 << 20)
            big.write(b"end")
        subprocess.run(["tar", "--sparse", "-C", str(context), "-cf", str(context / "a"), "sparse"], check=True)
        found = added(context, tree(), "a").entry("o/sparse")
        assert found is not None
        assert found.content is not None
        with found.content.open() as stream:
            data = stream.read()
        assert len(data) == found.size == (64 << 20) + 3
        assert data.endswith(b"\0end")
        spooled = [os.stat(path).st_blocks for path in context.parent.rglob("work/*/*")]
        assert sum(spooled) * 512 < 1 << 20

    def test_a_damaged_archive(self, context: Path) -> None:
        name = Archive(context / "a.tar").add("x", data="1" * 2000).add("y").close()
        whole = (context / name).read_bytes()
        (context / name).write_bytes(whole[:1500])
        error = failure(context, tree(), name)
        assert "unpacking a.tar" in error.message
        (context / name).write_bytes(whole[:2560] + b"\1" * 512 + whole[3072:])
        assert "unpacking a.tar" in failure(context, tree(), name).message

    def test_a_file_where_the_directory_should_be(self, context: Path) -> None:
        name = Archive(context / "a").add("x").close()
        assert "not a directory" in failure(context, tree(file("o")), name, to="/o").message

    def test_archives_files_and_heredocs_together(self, context: Path) -> None:
        Archive(context / "a.tar").add("x").close()
        (context / "f").touch()
        heredocs = (HeredocFile(name="EOF", content="text"),)
        assert added(context, tree(), "a.tar", "f", heredocs=heredocs).names("o") == ["EOF", "f", "x"]


class Handler(BaseHTTPRequestHandler):
    """Answers with what the path asks for."""

    failures: int

    def do_GET(self) -> None:
        data = b"contents" * 1000
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/dir/file.txt?x=1")
            self.end_headers()
            return
        if self.path.startswith("/status/"):
            self.send_error(int(self.path.split("/")[2][:3]))
            return
        if self.path == "/flaky" and self.server.failures:  # type: ignore[attr-defined]
            self.server.failures -= 1  # type: ignore[attr-defined]
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[:100])
            return
        if self.path == "/authorization":
            data = self.headers.get("Authorization", "none").encode()
        if self.path == "/archive.tar":
            buffer = io.BytesIO()
            with tarfile.open(fileobj=buffer, mode="w") as archive:
                archive.addfile(tarfile.TarInfo("inside"))
            data = buffer.getvalue()
        self.send_response(200)
        if self.path != "/undated":
            self.send_header("Last-Modified", "Fri, 14 Jul 2017 02:40:00 GMT")
        self.send_header("ETag", '"tag"')
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.failures = 2  # type: ignore[attr-defined]
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()
        thread.join()


CONTENTS = b"contents" * 1000


class TestUrls:
    def test_a_file(self, context: Path, server: str) -> None:
        found = added(context, tree(), f"{server}/dir/file.txt").entry("o/file.txt")
        assert found == Entry("o/file.txt", FileType.FILE, 0o600, mtime=MTIME, size=8000)
        assert text(found) == CONTENTS.decode()

    def test_under_another_name_mode_and_owner(self, context: Path, server: str) -> None:
        shown = added(context, image(), f"{server}/undated", to="/o/x", chown="bob", chmod="0644")
        assert shown.entry("o/x") == Entry("o/x", FileType.FILE, 0o644, 1000, 1001, 0, 8000)

    def test_a_redirection_does_not_change_the_name(self, context: Path, server: str) -> None:
        assert added(context, tree(), f"{server}/moved").names("o") == ["moved"]

    @pytest.mark.parametrize(
        ("url", "name"),
        [
            ("http://h", "__unnamed__"),
            ("http://h/", "__unnamed__"),
            ("http://h/a/b.tar.gz?x=/y#z", "b.tar.gz"),
            ("http://h/dir/", "dir"),
            ("http://h/a%20b", "a b"),
            ("http://h/..", "__unnamed__"),
        ],
    )
    def test_names(self, url: str, name: str) -> None:
        assert file_name(url) == name

    def test_an_archive_only_when_it_is_asked_for(self, context: Path, server: str) -> None:
        assert added(context, tree(), f"{server}/archive.tar").names("o") == ["archive.tar"]
        assert added(context, tree(), f"{server}/archive.tar", unpack=True).names("o") == ["inside"]
        assert added(context, tree(), f"{server}/plain", unpack=True).names("o") == ["plain"]

    @pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
    def test_checksums(self, context: Path, server: str, algorithm: str) -> None:
        right = f"{algorithm}:{hashlib.new(algorithm, CONTENTS).hexdigest()}"
        assert added(context, tree(), f"{server}/x", checksum=right).names("o") == ["x"]
        wrong = f"{algorithm}:{hashlib.new(algorithm, b'other').hexdigest()}"
        error = failure(context, tree(), f"{server}/x", checksum=wrong)
        assert right in error.message
        assert len(list(context.parent.glob("work/*/download"))) == 1  # the wrong one is gone

    def test_an_unknown_algorithm(self, context: Path, server: str) -> None:
        assert "sha256, sha384" in failure(context, tree(), f"{server}/x", checksum="md5:00").hint

    def test_a_broken_connection_is_tried_again(self, tmp_path: Path, server: str) -> None:
        found = download(f"{server}/flaky", tmp_path / "file")
        assert (found.size, found.etag) == (8000, '"tag"')
        assert found.digest == f"sha256:{hashlib.sha256(CONTENTS).hexdigest()}"

    @pytest.mark.parametrize(("status", "words"), [(404, "is the address right"), (403, "secret mount")])
    def test_a_refusal(self, context: Path, server: str, status: int, words: str) -> None:
        error = failure(context, tree(), f"{server}/status/{status}")
        assert str(status) in error.message
        assert words in error.hint

    def test_no_server(self, context: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("builder.steps.download._RETRIES", 0)
        error = failure(context, tree(), "http://127.0.0.1:1/file")
        assert "http://127.0.0.1:1/file: Connection refused" in error.message

    @pytest.mark.parametrize("url", ["http://[", "http:///x", "https://"])
    def test_no_address(self, context: Path, url: str) -> None:
        assert failure(context, tree(), url).message

    def test_credentials_are_those_of_the_address(
        self, context: Path, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "netrc").write_text("machine 127.0.0.1 login netrc password hush\n")
        monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
        assert text(added(context, tree(), f"{server}/authorization").entry("o/authorization")) == "none"
        with_user = server.replace("http://", "http://user:p%40ss@")
        sent = text(added(context, tree(), f"{with_user}/authorization").entry("o/authorization"))
        assert sent == "Basic " + base64.b64encode(b"user:p@ss").decode()

    def test_what_was_fetched_for_a_key_is_not_fetched_again(self, context: Path, server: str, tmp_path: Path) -> None:
        """ADD does not even make a directory of its own."""
        downloads = Downloads(tmp_path / "downloads")
        url = f"{server}/dir/file.txt"
        assert downloads.known(url) is None
        first = downloads.fetch(url)
        assert downloads.fetch(url) is downloads.known(url) is first
        (tmp_path / "work").mkdir()
        settings = AddSettings(tmp_path / "work", downloads=downloads)
        changes = add_changes(add_step(url, to="/o/"), ContextTree(context), tree(), SETTINGS, settings)
        assert text(tree().apply(changes).entry("o/file.txt")) == CONTENTS.decode()
        assert list((tmp_path / "work").iterdir()) == []

    def test_credentials_are_not_shown(self, context: Path, server: str) -> None:
        url = server.replace("http://", "http://user:hush@") + "/status/404?token=hush"
        assert redacted(url) == f"{server}/status/404?..."
        error = failure(context, tree(), url)
        assert "hush" not in f"{error.message} {error.hint}"


class TestGit:
    @pytest.fixture
    def checkout(self, tmp_path: Path) -> Path:
        path = tmp_path / "checkout"
        (path / "sub").mkdir(parents=True)
        (path / "sub" / "f").write_text("text")
        (path / "README.md").write_text("read me")
        if os.geteuid() == 0:
            os.chown(path / "README.md", 1000, 1000)
        return path

    def test_the_tree_comes_to_the_destination(self, context: Path, checkout: Path) -> None:
        asked: list[GitReference] = []

        def fetch(reference: GitReference) -> Path:
            asked.append(reference)
            return checkout

        result = added(
            context,
            tree(),
            "https://example.com/r.git#v1:dir",
            fetch_git=fetch,
            keep_git_dir=True,
            checksum="abc",
            exclude=("*.md",),
        )
        assert sorted(listing(result, "o")) == ["o/sub", "o/sub/f"]
        (reference,) = asked
        assert (reference.remote, reference.ref, reference.subdir) == ("https://example.com/r.git", "v1", "dir")
        assert (reference.keep_git_dir, reference.checksum) == (True, "abc")

    def test_it_is_owned_by_root(self, context: Path, checkout: Path) -> None:
        result = added(context, tree(), "git@example.com:r.git", to="/new", fetch_git=lambda reference: checkout)
        assert {(entry.uid, entry.gid) for entry in listing(result).values()} == {(0, 0)}
        assert result.names("new") == ["README.md", "sub"]

    def test_an_address_without_a_scheme_is_a_path(self, context: Path) -> None:
        (context / "github.com" / "x").mkdir(parents=True)
        (context / "github.com" / "x" / "f").touch()
        assert added(context, tree(), "github.com/x").names("o") == ["f"]

    def test_a_query_that_contradicts_itself(self, context: Path) -> None:
        error = failure(context, tree(), "https://example.com/r.git?tag=a&branch=b")
        assert "branch conflicts with tag" in error.message
