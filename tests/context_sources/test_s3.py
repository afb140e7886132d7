"""Contexts in S3: SeaweedFS, which checks signatures and permissions."""

from __future__ import annotations

import gzip
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore.config import Config

from builder.errors import ContextError, UsageError
from context_sources import FetchSettings, Limits, fetch
from context_sources.s3 import parse
from tests.context_sources.conftest import FILES, QUICK, Fetcher, archive_of, tree
from tests.servers import tinyproxy
from tests.servers.certificates import Authority
from tests.servers.front import Answer, CutResponse, Front, front
from tests.servers.seaweedfs import S3Server

BIG_FILES = {**FILES, "big": os.urandom(3 << 20)}
BIG = archive_of(BIG_FILES)
SECRET = "wrong-secret-0123456789"


@pytest.fixture(scope="module")
def bucket(s3: S3Server) -> Any:
    """`readable` and `hidden`, filled; a client for the writer."""
    client = botocore.session.Session().create_client(
        "s3",
        endpoint_url=s3.url,
        region_name="us-east-1",
        aws_access_key_id=s3.writer[0],
        aws_secret_access_key=s3.writer[1],
        config=Config(s3={"addressing_style": "path"}, request_checksum_calculation="when_required"),
    )
    for name in ("readable", "hidden"):
        client.create_bucket(Bucket=name)
    objects = {
        "context.tar.gz": gzip.compress(archive_of(FILES)),
        "big.tar": BIG,
        "app/v1?x#y.tar": archive_of(FILES),
        **{f"tree/{name}": data for name, data in FILES.items()},
        "tree/big": BIG_FILES["big"],
        "tree/nested/app/Dockerfile": b"FROM scratch",
        "tree/nested/app/.dockerignore": b"*.log\nDockerfile\n",
        "tree/nested/app/build.log": b"log",
        "tree/nested/app/kept": b"kept",
    }
    for key, data in objects.items():
        client.put_object(Bucket="readable", Key=key, Body=data)
    client.put_object(Bucket="hidden", Key="context.tar.gz", Body=objects["context.tar.gz"])
    return client


@pytest.fixture
def site(s3: S3Server, bucket: Any) -> Iterator[Front]:
    with front(s3.host) as running:
        yield running


@pytest.fixture
def reader(s3: S3Server, site: Front) -> dict[str, str]:
    return {
        "S3_ENDPOINT": f"http://{site.host}",
        "S3_FORCE_PATH_STYLE": "true",
        "AWS_ACCESS_KEY_ID": s3.reader[0],
        "AWS_SECRET_ACCESS_KEY": s3.reader[1],
    }


def test_an_archive(reader: dict[str, str], bucket: Any, fetcher: Fetcher) -> None:
    fetched = fetcher("s3://readable/big.tar", reader)
    assert tree(fetched.path) == BIG_FILES
    etag = bucket.head_object(Bucket="readable", Key="big.tar")["ETag"].strip('"')
    assert (fetched.source, fetched.revision_kind, fetched.revision) == ("s3://readable/big.tar", "etag", etag)
    assert fetcher.progress[-1] == (len(BIG), len(BIG))


@pytest.mark.parametrize("location", ["s3://readable", "s3://readable/", "s3://readable/context.tar.gz"])
def test_the_archive_is_not_part_of_the_context(reader: dict[str, str], fetcher: Fetcher, location: str) -> None:
    assert tree(fetcher(location, reader).path) == FILES


def test_addresses() -> None:
    assert parse("s3://b/k?versionId=v%2B1") == ("b", "k", "v+1")
    assert parse("s3://b/a?b#c") == ("b", "a?b#c", "")
    with pytest.raises(UsageError):
        parse("s3:///k")


def test_any_key(reader: dict[str, str], fetcher: Fetcher) -> None:
    assert tree(fetcher("s3://readable/app/v1?x#y.tar", reader).path) == FILES


def test_versions(reader: dict[str, str], bucket: Any, fetcher: Fetcher) -> None:
    bucket.create_bucket(Bucket="versions")
    bucket.put_bucket_versioning(Bucket="versions", VersioningConfiguration={"Status": "Enabled"})
    first = bucket.put_object(Bucket="versions", Key="a.tar", Body=archive_of({"v": b"1"}))["VersionId"]
    second = bucket.put_object(Bucket="versions", Key="a.tar", Body=archive_of({"v": b"2"}))["VersionId"]
    writer = {**reader, "AWS_ACCESS_KEY_ID": "writer-key-id", "AWS_SECRET_ACCESS_KEY": "writer-secret-0123"}
    old = fetcher(f"s3://versions/a.tar?versionId={first}", writer)
    assert (tree(old.path), old.revision, old.revision_kind) == ({"v": b"1"}, first, "version")
    assert fetcher("s3://versions/a.tar", writer).revision == second


def test_a_prefix_is_a_tree(reader: dict[str, str], fetcher: Fetcher) -> None:
    fetched = fetcher("s3://readable/tree/", reader)
    expected = {**BIG_FILES, **{f"nested/app/{name}": data for name, data in NESTED.items()}}
    assert tree(fetched.path) == expected
    assert fetched.revision.startswith("sha256:")
    assert fetcher("s3://readable/tree/", reader).revision == fetched.revision
    assert oct(os.stat(fetched.path / "Dockerfile").st_mode & 0o777) == "0o644"
    assert fetcher.progress[-1][1] == sum(map(len, expected.values()))


def test_objects_are_asked_for_in_the_clients_manner(reader: dict[str, str], site: Front, fetcher: Fetcher) -> None:
    """All of them are signed; the client itself, whose requests have numbers, only lists."""
    fetcher("s3://readable/tree/", reader)
    by_client = {seen.path for seen in site.seen if "amz-sdk-invocation-id" in seen.headers}
    assert [path for path in by_client if "list-type=2" not in path] == []
    objects = [seen for seen in site.seen if seen.path not in by_client]
    assert len(objects) == site.count("GET", "/tree/") == len(BIG_FILES) - 1 + len(NESTED)  # one is empty
    for seen in objects:
        assert "/us-east-1/s3/aws4_request" in seen.headers["Authorization"]


def objects_not_by_the_client(site: Front) -> int:
    return sum("/tree/" in seen.path and "amz-sdk-invocation-id" not in seen.headers for seen in site.seen)


@pytest.mark.parametrize("variable", ["AWS_CA_BUNDLE", "SSL_CERT_FILE"])
def test_objects_by_tls(
    s3: S3Server, reader: dict[str, str], site: Front, authority: Authority, fetcher: Fetcher, variable: str
) -> None:
    expected = tree(fetcher("s3://readable/tree/", reader).path)
    with front(s3.host, tls=authority.server()) as secure:
        environment = {**reader, "S3_ENDPOINT": f"https://{secure.host}"}
        trusting = {**environment, variable: str(authority.certificate)}
        assert tree(fetcher("s3://readable/tree/", trusting).path) == expected
        assert objects_not_by_the_client(secure) == site.count("GET", "/tree/")
        with pytest.raises(ContextError, match=r"s3://readable/tree/: SSL validation failed"):
            fetcher("s3://readable/tree/", environment)


def test_objects_by_a_proxy(
    s3: S3Server, reader: dict[str, str], site: Front, authority: Authority, tmp_path: Path, fetcher: Fetcher
) -> None:
    """One that is told whole URLs, and one that is a tunnel."""
    if reason := tinyproxy.missing():
        pytest.skip(reason)
    expected = tree(fetcher("s3://readable/tree/", reader).path)
    plain = site.count("GET", "/tree/")
    with (
        tinyproxy.tinyproxy(tmp_path) as (proxy, log),
        front(s3.host, tls=authority.server()) as secure,
        front(s3.host) as direct,
    ):
        for behind, scheme in ((direct, "http"), (secure, "https")):
            environment = {**reader, "S3_ENDPOINT": f"{scheme}://{behind.host}"}
            environment |= {f"{scheme}_proxy": f"http://me:secret@{proxy}", "SSL_CERT_FILE": str(authority.certificate)}
            assert tree(fetcher("s3://readable/tree/", environment).path) == expected
            assert objects_not_by_the_client(behind) == plain
            assert behind.host in log.read_text()


def test_listings_of_many_pages(reader: dict[str, str], bucket: Any, site: Front, fetcher: Fetcher) -> None:
    """A page has at most 1,000 keys."""
    expected = {f"{number % 7}/{number}": b"%d" % number for number in range(1100)}
    with ThreadPoolExecutor(8) as pool:
        for _ in pool.map(
            lambda item: bucket.put_object(Bucket="readable", Key=f"many/{item[0]}", Body=item[1]), expected.items()
        ):
            pass
    assert tree(fetcher("s3://readable/many/", reader).path) == expected
    assert site.count("GET", "continuation-token=") == 1


NESTED = {
    "Dockerfile": b"FROM scratch",
    ".dockerignore": b"*.log\nDockerfile\n",
    "build.log": b"log",
    "kept": b"kept",
}


def make_filter(text: str) -> Any:
    assert text == "*.log\nDockerfile\n"
    return lambda path: not (path.endswith(".log") or path == "Dockerfile")


def test_ignored_objects_stay_where_they_are(reader: dict[str, str], site: Front, fetcher: Fetcher) -> None:
    fetched = fetcher("s3://readable/tree/", reader, sub_path="nested/app", make_filter=make_filter)
    assert tree(fetched.path) == {name: data for name, data in NESTED.items() if name != "build.log"}
    assert site.count("GET", "build.log") == 0
    assert site.count("GET", "/tree/big") == 0  # nor what lies outside of the sub path
    whole = fetcher("s3://readable/tree/nested/app/", reader)
    assert tree(whole.path) == NESTED
    assert whole.revision != fetched.revision


def test_keys_that_are_no_paths(reader: dict[str, str], fetcher: Fetcher, s3: S3Server) -> None:
    """SeaweedFS keeps its objects as files, and so has neither of these; other stores do."""
    from context_sources.objects import make_directories

    for paths, said in (
        (["a", "a/b"], "is an object and a prefix"),
        (["a/../../b"], "leads out"),
        (["a//b"], "cannot be a file"),
        (["/etc/passwd"], "is absolute"),
        (["./a"], "cannot be a file"),
    ):
        fetcher.into = fetcher.root / said.replace(" ", "-")
        fetcher.into.mkdir(exist_ok=True)
        with pytest.raises(ContextError, match=said):
            make_directories(paths, "", fetcher.into, "s3://b/")


def test_limits_of_a_prefix(reader: dict[str, str], site: Front, fetcher: Fetcher) -> None:
    with pytest.raises(ContextError, match=r"more than 1000 bytes"):
        fetcher("s3://readable/tree/", reader, limits=Limits(size=1000))
    assert site.count("GET", "/tree/big") == 0
    with pytest.raises(ContextError, match=r"more than 2 entries"):
        fetcher("s3://readable/tree/", reader, limits=Limits(entries=2))


def test_an_archive_is_one_request(reader: dict[str, str], site: Front, fetcher: Fetcher) -> None:
    fetcher("s3://readable/big.tar", reader)
    assert [seen.method for seen in site.seen] == ["GET"]


def test_what_answers_is_no_store(reader: dict[str, str], site: Front, fetcher: Fetcher) -> None:
    site.fault(Answer(200, {}, b"<html><p>Welcome</p></html>"), times=99)
    with pytest.raises(ContextError, match=r"s3://readable/tree/: the store answers with no list of objects"):
        fetcher("s3://readable/tree/", reader)


def test_a_cut_connection_goes_on(reader: dict[str, str], site: Front, fetcher: Fetcher) -> None:
    site.fault(CutResponse(2_000_000, orderly=True), "GET", "big.tar")  # a reset could overtake all that came before it
    site.fault(CutResponse(500_000), "GET", "big.tar")
    assert tree(fetcher("s3://readable/big.tar", reader).path) == BIG_FILES
    ranges = [request.headers.get("Range", "") for request in site.seen if request.method == "GET"]
    assert ranges[0] == ""
    assert all(text.startswith("bytes=") for text in ranges[1:])
    assert len(ranges) == 3


def test_a_store_without_ranges_starts_again(
    reader: dict[str, str], site: Front, bucket: Any, fetcher: Fetcher
) -> None:
    site.fault(CutResponse(2_000_000), "GET", "big.tar")
    etag = bucket.head_object(Bucket="readable", Key="big.tar")["ETag"]
    site.fault(Answer(200, {"ETag": etag}, BIG), "GET", "big.tar")  # the header is signed, so it cannot be taken out
    assert tree(fetcher("s3://readable/big.tar", reader).path) == BIG_FILES


def test_a_cut_object_of_a_tree_goes_on(reader: dict[str, str], site: Front, fetcher: Fetcher) -> None:
    site.fault(CutResponse(1_000_000), "GET", "/tree/big", times=2)
    assert tree(fetcher("s3://readable/tree/", reader).path)["big"] == BIG_FILES["big"]


def test_an_object_that_changes_is_not_mixed(
    reader: dict[str, str], site: Front, bucket: Any, fetcher: Fetcher
) -> None:
    bucket.put_object(Bucket="readable", Key="changing.tar", Body=BIG)
    site.fault(CutResponse(2_000_000, orderly=True), "GET", "changing.tar")
    site.fault(Answer(412), "GET", "changing.tar")
    with pytest.raises(ContextError, match=r"changed while it was fetched"):
        fetcher("s3://readable/changing.tar", reader)
    assert os.listdir(fetcher.into) == []


def test_attempts_end(reader: dict[str, str], site: Front, fetcher: Fetcher) -> None:
    site.fault(Answer(503), times=99)
    with pytest.raises(ContextError, match=f"503.*{QUICK.attempts} times") as caught:
        fetcher("s3://readable/big.tar", reader)
    assert caught.value.transient
    with pytest.raises(ContextError, match=r"times"):
        fetcher("s3://readable/tree/", reader)


def test_a_store_that_listens_only_later(s3: S3Server, reader: dict[str, str], site: Front, tmp_path: Path) -> None:
    """The first attempt finds its port closed; the port opens before the second."""
    with ExitStack() as later:
        closed = later.enter_context(socket.socket())
        closed.bind(("127.0.0.1", 0))  # without listening: connections are refused, and nobody else gets the port
        port = closed.getsockname()[1]
        lines: list[str] = []

        def log(level: str, text: str) -> None:
            lines.append(text)
            if "trying again" in text and closed.fileno() != -1:
                closed.close()
                later.enter_context(front(s3.host, port=port))

        environment = {**reader, "S3_ENDPOINT": f"http://127.0.0.1:{port}"}
        fetch("s3://readable/big.tar", tmp_path, FetchSettings(environment=environment, log=log, retry=QUICK))
    assert [line for line in lines if "EndpointConnectionError" in line and "trying again" in line]
    assert tree(tmp_path) == BIG_FILES


def test_refusals_name_object_and_credential(reader: dict[str, str], fetcher: Fetcher) -> None:
    wrong = {**reader, "AWS_SECRET_ACCESS_KEY": SECRET}
    with pytest.raises(
        ContextError, match=r"s3://readable/big.tar: 403 .*the credential was AWS_ACCESS_KEY_ID of the environment"
    ) as caught:
        fetcher("s3://readable/big.tar", wrong)
    assert "AWS_SECRET_ACCESS_KEY" in caught.value.hint
    with pytest.raises(ContextError, match=r"s3://hidden/context.tar.gz: 403"):
        fetcher("s3://hidden/context.tar.gz", reader)
    with pytest.raises(ContextError, match=r"403"):
        fetcher("s3://hidden/tree/", reader)
    anonymous = {name: value for name, value in reader.items() if not name.startswith("AWS_")}
    anonymous["AWS_EC2_METADATA_DISABLED"] = "true"
    with pytest.raises(ContextError, match=r"403 .*no credential was found, requests are anonymous"):
        fetcher("s3://readable/big.tar", anonymous)
    for secret in (SECRET, reader["AWS_SECRET_ACCESS_KEY"]):
        assert secret not in fetcher.log


def test_what_is_not_there(reader: dict[str, str], fetcher: Fetcher) -> None:
    with pytest.raises(ContextError, match=r"s3://readable/absent.tar: no such object"):
        fetcher("s3://readable/absent.tar", reader)
    with pytest.raises(ContextError, match=r"no object begins with this prefix"):
        fetcher("s3://readable/absent/", reader)


def test_credentials_of_a_shared_file(s3: S3Server, reader: dict[str, str], tmp_path: Path, fetcher: Fetcher) -> None:
    """By HOME, by AWS_SHARED_CREDENTIALS_FILE, and by a profile; the process's own environment does not count."""
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "credentials").write_text(
        f"[default]\naws_access_key_id = {s3.reader[0]}\naws_secret_access_key = {s3.reader[1]}\n"
        f"[writer]\naws_access_key_id = {s3.writer[0]}\naws_secret_access_key = {s3.writer[1]}\n"
    )
    endpoint = {name: value for name, value in reader.items() if name.startswith("S3_")}
    assert tree(fetcher("s3://readable/big.tar", {**endpoint, "HOME": str(tmp_path)}).path) == BIG_FILES
    named = {**endpoint, "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / ".aws" / "credentials")}
    fetcher("s3://readable/big.tar", named)
    with pytest.raises(ContextError, match=r"the credential was the shared credentials file"):
        fetcher("s3://hidden/context.tar.gz", named)
    fetcher("s3://hidden/context.tar.gz", {**named, "AWS_PROFILE": "writer"})
    with pytest.raises(ContextError, match=r"AWS credentials: .*absent"):
        fetcher("s3://readable/big.tar", {**named, "AWS_PROFILE": "absent"})


def test_the_processs_environment_is_not_looked_at(reader: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "into").mkdir()
    program = f"""
import pathlib
from context_sources import fetch, FetchSettings
fetch("s3://readable/context.tar.gz", pathlib.Path({str(tmp_path / "into")!r}), FetchSettings(environment={reader!r}))
"""
    wrong = {"AWS_ACCESS_KEY_ID": "wrong", "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_ENDPOINT_URL": "http://127.0.0.1:1"}
    subprocess.run([sys.executable, "-c", program], env=wrong, check=True)
    assert tree(tmp_path / "into") == FILES


def test_web_identity(reader: dict[str, str], site: Front, s3: S3Server, tmp_path: Path, fetcher: Fetcher) -> None:
    """A service account's token is exchanged for keys: the exchange is seen, with the token of the file."""
    (tmp_path / "token").write_text("service-account-token")
    environment = {name: value for name, value in reader.items() if name.startswith("S3_")}
    environment |= {
        "AWS_WEB_IDENTITY_TOKEN_FILE": str(tmp_path / "token"),
        "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/build",
        "AWS_ENDPOINT_URL_STS": f"http://{site.host}/sts",
        "AWS_REGION": "eu-central-1",
    }
    answer = (
        '<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">'
        "<AssumeRoleWithWebIdentityResult><Credentials>"
        f"<AccessKeyId>{s3.reader[0]}</AccessKeyId><SecretAccessKey>{s3.reader[1]}</SecretAccessKey>"
        "<SessionToken></SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration>"
        "</Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
    )
    site.fault(Answer(200, {"Content-Type": "text/xml"}, answer.encode()), "POST", "/sts")
    with pytest.raises(ContextError, match=r"the credential was the web identity in AWS_WEB_IDENTITY_TOKEN_FILE"):
        fetcher("s3://hidden/context.tar.gz", environment)
    assert site.count("POST", "/sts") == 1


def test_the_containers_role(reader: dict[str, str], site: Front, s3: S3Server, fetcher: Fetcher) -> None:
    """EKS Pod Identity and ECS: keys from an address that the environment names."""
    environment = {name: value for name, value in reader.items() if name.startswith("S3_")}
    environment["AWS_CONTAINER_CREDENTIALS_FULL_URI"] = f"http://{site.host}/role"
    keys = f'{{"AccessKeyId": "{s3.reader[0]}", "SecretAccessKey": "{s3.reader[1]}", "Token": "", '
    keys += '"Expiration": "2099-01-01T00:00:00Z"}'
    site.fault(Answer(200, {}, keys.encode()), "GET", "/role")
    with pytest.raises(ContextError, match=r"the credential was the container's role"):
        fetcher("s3://hidden/context.tar.gz", environment)


def test_the_dockerfile_of_a_prefix_comes_first(reader: dict[str, str], site: Front, fetcher: Fetcher) -> None:
    fetched_before: list[int] = []
    fetcher(
        "s3://readable/tree/", reader, dockerfile_seen=lambda path: fetched_before.append(site.count("GET", "/tree/"))
    )
    assert fetched_before == [1]
