"""The seam: which source reads a location, sub paths, failures, what is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from builder.errors import ContextError, UsageError
from context_sources import FetchSettings
from context_sources.redaction import MASK, redact, secrets_of
from context_sources.schemes import BUILT_IN, find_source, kind_of
from tests.context_sources.conftest import Fetcher, add, add_file, archive, archive_of, tree

AZURITE = {"AZURE_STORAGE_BLOB_ENDPOINT": "http://127.0.0.1:10000/devstoreaccount1"}


@pytest.mark.parametrize(
    ("location", "kind"),
    [
        ("/workspace", "directory"),
        (".", "directory"),
        ("dir:///workspace", "directory"),
        ("tar://stdin", "tar"),
        ("https://example.com/context.tar.gz", "https"),
        ("https://example.com/context.git.tar.gz", "https"),
        ("http://example.com/x", "https"),
        ("https://github.com/org/app.git", "git"),
        ("https://github.com/org/app.git#main:sub", "git"),
        ("https://github.com/org/app.git?branch=main", "git"),
        ("HTTPS://github.com/org/app.git", "git"),
        ("git://github.com/org/app", "git"),
        ("git@github.com:org/app", "git"),
        ("git@github.com:org/app#main", "git"),
        ("ssh://git@github.com/org/app", "git"),
        ("git+https://dev.azure.com/org/p/_git/r", "git"),
        ("git+ssh://git@host/x", "git"),
        ("git+file:///srv/x", "git"),
        ("s3://bucket/key", "s3"),
        ("gs://bucket", "gcs"),
        ("https://acc.blob.core.windows.net/c/b", "azure"),
        ("https://acc.blob.core.chinacloudapi.cn/c/b", "azure"),
        ("https://acc.blob.core.usgovcloudapi.net/c/b", "azure"),
        ("https://acc.blob.core.cloudapi.de/c/b", "azure"),
        ("https://acc.z01.blob.storage.azure.net/c/b", "azure"),
        ("https://acc.blob.core.windows.net.example.com/c/b", "https"),
        ("http://127.0.0.1:10000/devstoreaccount1/c/b", "azure"),
        ("http://127.0.0.1:10000/devstoreaccount12/c/b", "https"),
        ("oci://registry/repo:tag", "oci"),
        ("ftp://host/x", ""),
    ],
)
def test_the_location_says_which_source(location: str, kind: str) -> None:
    assert kind_of(location, AZURITE) == kind


def test_every_built_in_source_loads() -> None:
    locations = (
        "/",
        "tar://-",
        "https://h/x",
        "git://h/x",
        "s3://b/k",
        "gs://b/k",
        "https://a.blob.core.windows.net/c/b",
    )
    loaded = {type(find_source(location, FetchSettings())).__name__ for location in (*locations, "oci://r/p")}
    assert loaded == {value.partition(":")[2] for value in BUILT_IN.values()}


def test_an_unknown_scheme_lists_the_known_ones() -> None:
    with pytest.raises(UsageError, match="no source for ftp://") as caught:
        find_source("ftp://host/x", FetchSettings())
    assert "s3" in caught.value.hint


def test_a_directory_is_used_where_it_lies(tmp_path: Path, fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "work" / "sub").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    for location in (str(tmp_path / "work"), f"dir://{tmp_path}/work", "work", "dir://work", "./work/"):
        assert fetcher(location).path == tmp_path / "work"
        assert os.listdir(fetcher.into) == []
    assert fetcher("work", sub_path="sub").path == tmp_path / "work" / "sub"


def test_a_directory_that_is_none_says_what_it_is(tmp_path: Path, fetcher: Fetcher) -> None:
    with pytest.raises(ContextError, match="does not exist"):
        fetcher(str(tmp_path / "absent"))
    (tmp_path / "file").write_text("x")
    with pytest.raises(ContextError, match="is not a directory") as caught:
        fetcher(str(tmp_path / "file"))
    assert "tar://" in caught.value.hint


def write_links(tmp_path: Path) -> Path:
    path = tmp_path / "links.tar"
    path.write_bytes(
        archive(
            lambda tar: [
                add_file(tar, "app/Dockerfile", b"FROM scratch"),
                add(tar, "inside", b"2", "app"),
                add(tar, "outside", b"2", "../.."),
                add(tar, "absolute", b"2", "/etc"),
                add_file(tar, "file", b""),
            ]
        )
    )
    return path


@pytest.mark.parametrize(
    "location",
    [
        "https://[bad/context.tar.gz",
        "git://[bad/app.git",
        "s3://[bucket/key",
        "https://host:port/context.tar.gz",
        "https://host:99999/context.tar.gz",
        "https://user:pass/word@host/context.tar.gz",
        "https://user:pass/word@host/app.git",
        "git+https://user:pass/word@host/app.git",
    ],
)
def test_an_address_that_is_no_url_is_told_without_its_password(fetcher: Fetcher, location: str) -> None:
    with pytest.raises(UsageError, match="not a URL") as caught:
        fetcher(location)
    assert "pass" not in caught.value.message
    assert os.listdir(fetcher.into) == []


def test_a_path_may_have_any_name(tmp_path: Path, fetcher: Fetcher) -> None:
    (tmp_path / "a[b@c:d.tar").write_bytes(archive_of({"a": b"1"}))
    assert tree(fetcher(f"tar://{tmp_path}/a[b@c:d.tar").path) == {"a": b"1"}


@pytest.mark.parametrize("sub_path", ["app", "/app", "app/", "inside", "app/../inside", "./app"])
def test_sub_paths_are_found(tmp_path: Path, fetcher: Fetcher, sub_path: str) -> None:
    fetched = fetcher(f"tar://{write_links(tmp_path)}", sub_path=sub_path)
    assert tree(fetched.path) == {"Dockerfile": b"FROM scratch"}


@pytest.mark.parametrize("sub_path", ["..", "app/../..", "outside", "absolute", "outside/etc", "file", "absent"])
def test_sub_paths_stay_inside(tmp_path: Path, fetcher: Fetcher, sub_path: str) -> None:
    with pytest.raises(ContextError, match="--context-sub-path"):
        fetcher(f"tar://{write_links(tmp_path)}", sub_path=sub_path)
    assert os.listdir(fetcher.into) == []


def test_standard_input_is_read(tmp_path: Path, fetcher: Fetcher) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(archive_of({"a": b"1"}))
    for location in ("tar://stdin", "tar://-"):
        with open(path, "rb") as file:
            fetched = fetcher(location, stdin=file.fileno())
        assert tree(fetched.path) == {"a": b"1"}
        assert fetched.source == "tar://stdin"
        assert fetched.revision.startswith("sha256:")


def test_a_terminal_is_no_archive(fetcher: Fetcher) -> None:
    controller, terminal = os.openpty()
    try:
        with pytest.raises(ContextError, match="is a terminal") as caught:
            fetcher("tar://stdin", stdin=terminal)
        assert "--interactive" in caught.value.hint
    finally:
        os.close(controller)
        os.close(terminal)


def test_progress_is_in_bytes(tmp_path: Path, fetcher: Fetcher) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(archive_of({"a": bytes(3 << 20)}))
    fetcher(f"tar://{path}")
    assert fetcher.progress[-1] == (path.stat().st_size, path.stat().st_size)
    assert sorted(fetcher.progress) == fetcher.progress
    assert len(fetcher.progress) > 3


def test_an_archive_that_is_absent_or_a_directory(tmp_path: Path, fetcher: Fetcher) -> None:
    with pytest.raises(ContextError, match="No such file"):
        fetcher("tar:///absent.tar")
    with pytest.raises(ContextError, match="is a directory") as caught:
        fetcher(f"tar://{tmp_path}")
    assert "dir://" in caught.value.hint


def test_a_full_disk_is_an_error_that_says_so(tmp_path: Path, fetcher: Fetcher) -> None:
    """A file system of one mebibyte, in a mount namespace of its own."""
    path = tmp_path / "a.tar"
    path.write_bytes(archive_of({"a": bytes(3 << 20)}))
    program = (
        "import sys, pathlib; from context_sources import fetch, FetchSettings; from builder.errors import ContextError\n"  # noqa: E501
        f"try: fetch('tar://{path}', pathlib.Path('{tmp_path}/small'), FetchSettings())\n"
        "except ContextError as error: print(error.message, '|', error.hint)"
    )
    (tmp_path / "small").mkdir()
    command = f'mount -t tmpfs -o size=1m none {tmp_path}/small && exec {sys.executable} -c "$PROGRAM"'
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", command],
        env={**os.environ, "PROGRAM": program},
        capture_output=True,
        text=True,
    )
    if "Operation not permitted" in done.stderr:
        pytest.skip("no user namespaces here")
    assert "No space left on device" in done.stdout
    assert "more space" in done.stdout


def test_nothing_heavy_is_imported_for_a_local_build(tmp_path: Path) -> None:
    (tmp_path / "into").mkdir()
    program = f"""
import sys, pathlib
import builder.cli.main
import builder.cli.wiring
from context_sources import fetch, FetchSettings
fetch({str(tmp_path)!r}, pathlib.Path({str(tmp_path / "into")!r}), FetchSettings())
print(*sorted({{name.partition('.')[0] for name in sys.modules}} & {{'boto3', 'botocore', 'google', 'azure', 'msal'}}))
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == ""


def test_each_source_imports_its_own_sdk_only() -> None:
    """Run one source at a time; the other clouds' libraries stay away."""
    sdks = {"s3": "botocore", "gcs": "", "azure": "", "https": "", "git": "", "oci": "", "tar": ""}
    for kind, own in sdks.items():
        program = (
            f"import sys, context_sources.{kind}\n"
            "print(*sorted({name.partition('.')[0] for name in sys.modules} & {'botocore', 'google', 'azure'}))"
        )
        done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
        assert done.stdout.strip() == own, kind


def test_secrets_are_found_and_masked() -> None:
    environment = {
        "GIT_TOKEN": "token-value",
        "AWS_SECRET_ACCESS_KEY": "aws+value/1",
        "AZURE_STORAGE_CONNECTION_STRING": "AccountName=a;AccountKey=azure-value==;BlobEndpoint=https://x",
        "AWS_WEB_IDENTITY_TOKEN_FILE": "/var/run/token",
        "HOME": "/home/user",
    }
    location = "https://user:p%40ssword@host/x?sv=1&sig=sas%2Bvalue#sha256=0"
    secrets = secrets_of(location, environment)
    text = "token-value aws+value/1 aws%2Bvalue%2F1 azure-value== p%40ssword p@ssword sas%2Bvalue sas+value"
    assert set(redact(text, secrets).split()) == {MASK}
    assert redact("/var/run/token /home/user host", secrets) == "/var/run/token /home/user host"


def test_a_credential_in_an_error_is_masked(fetcher: Fetcher) -> None:
    with pytest.raises(ContextError) as caught:
        fetcher("tar:///absent/hunter2-hunter2", {"SOME_TOKEN": "hunter2-hunter2"})
    assert "hunter2" not in f"{caught.value} {caught.value.hint} {caught.value.message}"
