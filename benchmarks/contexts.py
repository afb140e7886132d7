"""Fetching contexts beside the plain tool: the same server, the same bytes, one run, ratios.

    python benchmarks/contexts.py [--rounds N] [--only SOURCE] [--size MIB] [--files N] [--work DIRECTORY]
                                  [--aws PROGRAM]

Each source is measured with one large file and with many small ones. The plain tools are `curl URL | tar` for web
servers and object stores, `git clone --depth 1` for git, and `curl --parallel` for a tree of objects, with URLs that
were signed before. With --aws (of awscli, installed in an environment of its own) S3 is measured a second time, beside
`aws s3 cp URL - | tar` and `aws s3 cp --recursive`, which find and sign the objects themselves. Rounds are interleaved
and medians compared. A work directory in memory (--work /dev/shm) takes the disk out of it. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.measure import Measurement, measure  # noqa: E402

MIB = 1 << 20
PIECE = os.urandom(MIB)


@dataclass(frozen=True)
class Race:
    """One source with one content: what Limpet is told, and the shell command that does the same into `$INTO`."""

    source: str
    content: str
    size: int
    location: str
    plain: str
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Contents:
    """The archives: `large` has one file and is not compressed, `small` has many and is (gzip)."""

    large: Path
    small: Path
    large_name: str
    small_name: str


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", action="append", default=[], choices=SOURCES, help="repeatable")
    parser.add_argument("--size", type=int, default=2048, help="MiB of the large file")
    parser.add_argument("--files", type=int, default=50_000, help="number of small files")
    parser.add_argument("--objects", type=int, default=5_000, help="number of objects below a prefix")
    parser.add_argument("--work", type=Path, default=Path("/var/tmp"))
    parser.add_argument("--aws", type=Path, help="AWS's command line, to measure S3 beside it, too")
    parser.add_argument("--json", type=Path, help="write every measurement here")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="limpet-bench-", dir=options.work) as directory:
        work = Path(directory)
        contents = make_contents(work, options.size, options.files)
        for name in options.only or SOURCES:
            with SOURCES[name](work, contents, options.objects) as races:
                if options.aws and name == "s3":
                    races += [beside_aws(race, options.aws.absolute()) for race in races]
                rows += [run(race, work, options.rounds) for race in races]
                if options.json:
                    options.json.write_text(json.dumps(rows, indent=1))
    print(table(rows))
    return 0


def run(race: Race, work: Path, rounds: int) -> dict[str, Any]:
    into = work / "into"
    limpet = [sys.executable, str(ROOT / "benchmarks/fetch_context.py"), race.location, str(into)]
    plain = ["bash", "-o", "pipefail", "-ec", race.plain]
    environment = {"PATH": os.environ["PATH"], "HOME": str(work), "INTO": str(into), **race.environment}
    found: dict[str, list[Measurement]] = {"limpet": [], "plain": []}
    for _ in range(rounds):
        for name, command in (("limpet", limpet), ("plain", plain)):
            subprocess.run(["rm", "-rf", str(into)], check=True)
            into.mkdir()
            # What the other one left to write is not this one's time.
            subprocess.run(["sync", "-f", str(work)], check=True)
            found[name].append(measure([command], cwd=work, env=environment))
            print(f"{race.source}, {race.content}, {name}: {found[name][-1].wall:.2f} s", file=sys.stderr)
    subprocess.run(["rm", "-rf", str(into)], check=True)
    return {
        "source": race.source,
        "content": race.content,
        "size": race.size,
        **{f"{name}_seconds": [one.wall for one in every] for name, every in found.items()},
        **{f"{name}_cpu": [one.cpu for one in every] for name, every in found.items()},
        **{f"{name}_memory": max(one.memory for one in every) for name, every in found.items()},
    }


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| source | content | Limpet | plain tool | ratio | CPU: ours | plain tool | ratio | memory: Limpet | plain |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        cells = []
        for what in ("seconds", "cpu"):
            ours, theirs = (statistics.median(row[f"{name}_{what}"]) for name in ("limpet", "plain"))
            cells += [f"{ours:.2f} s", f"{theirs:.2f} s", f"{ours / theirs:.2f}"]
            if what == "seconds":
                cells[0] += f" ({row['size'] / MIB / ours:.0f} MiB/s)"
        cells += [f"{row[f'{name}_memory'] / MIB:.0f} MiB" for name in ("limpet", "plain")]
        lines.append("| " + " | ".join([row["source"], row["content"], *cells]) + " |")
    return "\n".join(lines)


def make_contents(work: Path, mib: int, files: int) -> Contents:
    print("making the archives", file=sys.stderr)
    large, small = work / "large", work / "small"
    large.mkdir()
    with open(large / "file", "wb") as file:
        for number in range(mib):
            file.write(number.to_bytes(8, "big") + PIECE[8:])
    for number in range(files):
        if number % 100 == 0:
            (small / str(number // 100)).mkdir(parents=True)
        (small / str(number // 100) / str(number)).write_bytes(PIECE[number : number + 1024 + number % 1024])
    for name, directory, options in (("large.tar", large, "-cf"), ("small.tgz", small, "-czf")):
        subprocess.run(["tar", "-C", str(directory), options, str(work / name), "."], check=True)
    return Contents(work / "large.tar", work / "small.tgz", f"1 file, {mib} MiB", f"{files} files, gzip")


def archives(
    source: str, contents: Contents, address: Callable[[str], tuple[str, str]], **environment: str
) -> list[Race]:
    """`address` gives for the name of an archive what Limpet is told and the URL for curl."""
    races = []
    for path, content, flag in (
        (contents.large, contents.large_name, "-x"),
        (contents.small, contents.small_name, "-xz"),
    ):
        location, url = address(path.name)
        plain = f'curl -fsS {shlex.quote(url)} | tar {flag} -C "$INTO"'
        races.append(Race(source, content, path.stat().st_size, location, plain, environment))
    return races


@contextmanager
def https(work: Path, contents: Contents, objects: int) -> Iterator[list[Race]]:
    from tests.servers.web import web_server

    with web_server(work / "web") as server:
        for path in (contents.large, contents.small):
            (server.root / path.name).symlink_to(path)
        yield archives("http", contents, lambda name: (f"http://{server.host}/{name}",) * 2)


@contextmanager
def git(work: Path, contents: Contents, objects: int) -> Iterator[list[Race]]:
    """git's own protocol: what http adds is the same for both."""
    from tests.servers.git_daemon import git_daemon

    repositories = work / "repositories"
    races = []
    repositories.mkdir()
    with git_daemon(repositories) as host:
        for name, content in (("large", contents.large_name), ("small", contents.small_name.partition(",")[0])):
            repository, tree = repositories / f"{name}.git", work / name
            options = ["-c", "user.name=b", "-c", "user.email=b@example.com", "-c", "core.bigFileThreshold=1m"]
            command = ["git", *options, "-c", "core.compression=0", f"--git-dir={repository}", f"--work-tree={tree}"]
            subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(repository)], check=True)
            for arguments in (["add", "."], ["commit", "-q", "-m", "context"]):
                subprocess.run([*command, *arguments], check=True)
            size = sum(entry.stat().st_size for entry in tree.rglob("*") if entry.is_file())
            address = f"git://{host}/{name}.git"
            plain = f'git clone -q --depth 1 {address} "$INTO/clone"'
            races.append(Race("git", content, size, address, plain, {"GIT_PULL_METHOD": "git"}))
        yield races


@contextmanager
def s3(work: Path, contents: Contents, objects: int) -> Iterator[list[Race]]:
    from tests.context_sources.places import s3_client, s3_environment
    from tests.servers.seaweedfs import seaweedfs

    with seaweedfs(work / "s3", volumes=200) as server:
        client = s3_client(server)
        client.create_bucket(Bucket="bench")
        for path in (contents.large, contents.small):
            upload_in_parts(client, path)

        def signed(key: str) -> str:
            url: str = client.generate_presigned_url("get_object", {"Bucket": "bench", "Key": key})
            return url

        environment = s3_environment(server)
        races = archives("S3", contents, lambda name: (f"s3://bench/{name}", signed(name)), **environment)
        files = sorted(path for path in (work / "small").rglob("*") if path.is_file())[:objects]

        def put(path: Path) -> str:
            key = f"tree/{path.relative_to(work / 'small')}"
            client.put_object(Bucket="bench", Key=key, Body=path.read_bytes())
            return f'url = "{signed(key)}"\noutput = "{path.relative_to(work / "small")}"\n'

        with ThreadPoolExecutor(16) as pool:
            (work / "urls").write_text("".join(pool.map(put, files)))
        plain = f'cd "$INTO" && curl -fsS --parallel --parallel-max 16 --create-dirs --config {work / "urls"}'
        size = sum(path.stat().st_size for path in files)
        races.append(Race("S3", f"{len(files)} objects", size, "s3://bench/tree/", plain, environment))
        yield races


def beside_aws(race: Race, program: Path) -> Race:
    """The same race, with what a user of AWS's command line would write."""
    copy = f"{shlex.quote(str(program))} s3 cp --only-show-errors"
    plain = f'{copy} --recursive {race.location} "$INTO"'
    if not race.location.endswith("/"):
        flags = "-xz" if race.location.endswith("gz") else "-x"
        plain = f'{copy} {race.location} - | tar {flags} -C "$INTO"'
    environment = {"AWS_ENDPOINT_URL": race.environment["S3_ENDPOINT"], "AWS_REGION": "us-east-1", **race.environment}
    return replace(race, content=f"{race.content}, beside aws", plain=plain, environment=environment)


def upload_in_parts(client: Any, path: Path) -> None:
    begun = client.create_multipart_upload(Bucket="bench", Key=path.name)["UploadId"]
    parts = []
    with open(path, "rb") as file:
        while data := file.read(32 * MIB):
            number = len(parts) + 1
            part = client.upload_part(Bucket="bench", Key=path.name, UploadId=begun, PartNumber=number, Body=data)
            parts.append({"PartNumber": number, "ETag": part["ETag"]})
    client.complete_multipart_upload(Bucket="bench", Key=path.name, UploadId=begun, MultipartUpload={"Parts": parts})


@contextmanager
def gcs(work: Path, contents: Contents, objects: int) -> Iterator[list[Race]]:
    from tests.context_sources.places import make_gcs_bucket, put_gcs_object
    from tests.servers.fake_gcs import fake_gcs

    with fake_gcs(work / "gcs", work / "gcs-objects") as host:
        make_gcs_bucket(host, "bench")
        for path in (contents.large, contents.small):
            with open(path, "rb") as file:
                put_gcs_object(host, "bench", path.name, file)
        media = f"http://{host}/download/storage/v1/b/bench/o/{{}}?alt=media"
        yield archives(
            "GCS",
            contents,
            lambda name: (f"gs://bench/{name}", media.format(name)),
            STORAGE_EMULATOR_HOST=f"http://{host}",
        )


@contextmanager
def azure(work: Path, contents: Contents, objects: int) -> Iterator[list[Race]]:
    from azure.storage.blob import ContainerSasPermissions, generate_container_sas

    from tests.context_sources.places import azure_client
    from tests.servers.azurite import azurite

    with azurite(work / "azure", in_memory=False) as server:
        container = azure_client(server).create_container("bench")
        for path in (contents.large, contents.small):
            with open(path, "rb") as file:
                container.upload_blob(path.name, file, max_concurrency=2)
        sas = generate_container_sas(
            server.account,
            "bench",
            account_key=server.key,
            permission=ContainerSasPermissions(read=True),
            expiry=datetime.now(UTC) + timedelta(hours=4),
        )
        url = f"{server.url}/bench/"
        yield archives(
            "Azure",
            contents,
            lambda name: (url + name, f"{url}{name}?{sas}"),
            AZURE_STORAGE_BLOB_ENDPOINT=server.url,
            AZURE_STORAGE_ACCESS_KEY=server.key,
        )


SOURCES = {"https": https, "git": git, "s3": s3, "gcs": gcs, "azure": azure}

if __name__ == "__main__":
    sys.exit(main())
