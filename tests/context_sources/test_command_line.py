"""Every way to name a context, from the command line to an image, against its server; and where credentials are seen.

The program runs under strace, which writes down the arguments and the environment of every program that is started.
"""

from __future__ import annotations

import base64
import bz2
import datetime
import gzip
import hashlib
import io
import json
import lzma
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import zstandard
from azure.storage.blob import BlobServiceClient, ContainerSasPermissions, generate_container_sas

from tests.context_sources.conftest import FILES, Repository, archive_of, make_repository
from tests.context_sources.places import (
    azure_client,
    in_registry,
    make_gcs_bucket,
    put_gcs_object,
    s3_client,
    s3_environment,
)
from tests.context_sources.test_gcs import key_file
from tests.servers import azurite as azurite_server
from tests.servers import git_http, ssh, web
from tests.servers import registry as registry_server
from tests.servers.azurite import AzuriteServer
from tests.servers.certificates import Authority
from tests.servers.clouds import every_https_host, json_server
from tests.servers.entra import CLIENT, TENANT, Entra
from tests.servers.front import Answer, Front, front
from tests.servers.git_daemon import git_daemon
from tests.servers.git_http import GitServer
from tests.servers.git_http import git_http as serve_git
from tests.servers.registry import free_port
from tests.servers.seaweedfs import S3Server
from tests.servers.ssh import SshServer, ssh_server
from tests.servers.web import web_server

TOKEN, PASSWORD, ACCESS = "token-0123456789", "password-0123456789", "access-0123456789"
ARCHIVE = archive_of(FILES)
BUCKET = "command-line"
TREE = {**FILES, ".dockerignore": b"*.log\n", "a.log": b"left out"}
STRACE = shutil.which("strace")


@dataclass(frozen=True)
class Row:
    """`context` as the user names it; `kind` of its revision, "" for none; `secrets` that nobody may see."""

    context: str
    kind: str
    environment: Mapping[str, str] = field(default_factory=dict)
    argv: tuple[str, ...] = ()
    secrets: Sequence[str] = ()
    stdin: bytes = b""


class World:
    """The servers, each started when the first row asks for it, with the context in it."""

    def __init__(self, request: pytest.FixtureRequest, root: Path, stack: ExitStack) -> None:
        self._request = request
        self.stack = stack
        self.root = root

    def skip_for(self, reason: str) -> None:
        if reason:
            pytest.skip(reason)

    def file(self, name: str, data: bytes | str, mode: int = 0o600) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        path.chmod(mode)
        return path

    @cached_property
    def authority(self) -> Authority:
        found: Authority = self._request.getfixturevalue("authority")
        return found

    @cached_property
    def trusting(self) -> dict[str, str]:
        return {"SSL_CERT_FILE": str(self.authority.certificate)}

    @cached_property
    def directory(self) -> Path:
        for name, data in FILES.items():
            self.file(f"directory/{name}", data)
        return self.root / "directory"

    @cached_property
    def web(self) -> str:
        """Plain HTTP; `site` is the same behind TLS."""
        self.skip_for(web.missing())
        server = self.stack.enter_context(web_server(self.root / "web", {"user": PASSWORD}))
        for name in ("context.tar", "private/context.tar"):
            (server.root / name).write_bytes(ARCHIVE)
        return server.host

    @cached_property
    def site(self) -> Front:
        return self.stack.enter_context(front(self.web, tls=self.authority.server()))

    @cached_property
    def repository(self) -> Repository:
        return make_repository(self.root / "app.git", self.root / "work")

    @cached_property
    def git(self) -> GitServer:
        self.skip_for(git_http.missing())
        users = {"user": PASSWORD, "*": TOKEN}
        server = self.stack.enter_context(serve_git(self.root / "git", tls=self.authority.server(), users=users))
        shutil.copytree(self.repository.path, server.root / "app.git")
        return server

    @property
    def git_host(self) -> str:
        return self.git.url.partition("://")[2]

    @cached_property
    def git_daemon(self) -> str:
        return self.stack.enter_context(git_daemon(self.repository.path.parent))

    @cached_property
    def ssh(self) -> SshServer:
        self.skip_for(ssh.missing())
        return self.stack.enter_context(ssh_server(self.root / "ssh"))

    @cached_property
    def ssh_environment(self) -> dict[str, str]:
        return {"GIT_SSH_KEY_FILE": str(self.ssh.key), "GIT_SSH_KNOWN_HOSTS_FILE": str(self.ssh.known_hosts)}

    @cached_property
    def s3(self) -> dict[str, str]:
        """The environment for it."""
        server: S3Server = self._request.getfixturevalue("s3")
        client = s3_client(server)
        client.create_bucket(Bucket=BUCKET)
        for key, data in {"context.tar.gz": gzip.compress(ARCHIVE), **below("tree/")}.items():
            client.put_object(Bucket=BUCKET, Key=key, Body=data)
        return s3_environment(server)

    @cached_property
    def gcs(self) -> dict[str, str]:
        """The environment for it, with a service account whose tokens come from the server before it."""
        host = self._request.getfixturevalue("gcs")
        make_gcs_bucket(host, BUCKET)
        for key, data in {"context.tar.gz": gzip.compress(ARCHIVE), **below("tree/")}.items():
            put_gcs_object(host, BUCKET, key, data)
        site = self.stack.enter_context(front(host))
        token = json.dumps({"access_token": ACCESS, "expires_in": 3600, "token_type": "Bearer"}).encode()
        site.fault(Answer(200, {"Content-Type": "application/json"}, token), "POST", "/token", times=99)
        key = key_file(self.root / "key.json", f"http://{site.host}/token")
        return {"STORAGE_EMULATOR_HOST": f"http://{site.host}", "GOOGLE_APPLICATION_CREDENTIALS": key}

    @cached_property
    def azure(self) -> AzuriteServer:
        server: AzuriteServer = self._request.getfixturevalue("azure")
        container = azure_client(server).create_container(BUCKET)
        for key, data in {"context.tar.gz": gzip.compress(ARCHIVE), **below("tree/")}.items():
            container.upload_blob(key, data)
        return server

    @cached_property
    def azure_with_tokens(self) -> AzuriteServer:
        """Behind TLS, which tokens need."""
        self.skip_for(azurite_server.missing())
        tls = self.authority.server()
        server = self.stack.enter_context(azurite_server.azurite(self.root / "azure", tls=tls))
        account = {"account_name": server.account, "account_key": server.key}
        client = BlobServiceClient(server.url, account, connection_verify=str(self.authority.certificate))
        client.create_container(BUCKET).upload_blob("context.tar.gz", gzip.compress(ARCHIVE))
        return server

    @cached_property
    def entra(self) -> tuple[Entra, str]:
        """It, and a proxy that leads to it."""
        server = Entra(assertion=TOKEN, secret=PASSWORD)
        pair = self.authority.server("login.microsoftonline.com", "login.microsoft.com")
        return server, self.stack.enter_context(every_https_host(pair, server.answer))

    @cached_property
    def registry(self) -> str:
        """The reference of an artifact."""
        self.skip_for(registry_server.missing())
        server = self.stack.enter_context(registry_server.docker_registry(self.root / "registry"))
        return in_registry(server.host)("context", gzip.compress(ARCHIVE), "").location


def below(prefix: str) -> dict[str, bytes]:
    return {prefix + name: data for name, data in TREE.items()}


@pytest.fixture(scope="module")
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with ExitStack() as stack:
        yield World(request, tmp_path_factory.mktemp("world"), stack)


def tar_row(name: str, pack: Callable[[bytes], bytes]) -> Callable[[World], Row]:
    return lambda world: Row(f"tar://{world.file(name, pack(ARCHIVE))}", "digest")


def https_row(path: str = "/context.tar", *argv: str, **environment: str) -> Callable[[World], Row]:
    return lambda world: Row(
        f"https://{world.site.host}{path}", "digest", {**world.trusting, **environment}, argv, (PASSWORD, TOKEN)
    )


def netrc(world: World) -> Row:
    machine = f"machine 127.0.0.1 login user password {PASSWORD}\n"
    return https_row("/private/context.tar", NETRC=str(world.file("netrc", machine)))(world)


def header_file(world: World) -> Row:
    value = base64_of(f"user:{PASSWORD}")
    path = world.file("headers", f"Authorization: Basic {value}\n")
    row = https_row("/private/context.tar", f"--context-header-file={path}")(world)
    return replace(row, secrets=(*row.secrets, value))


def base64_of(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def git_row(address: Callable[[World], str], **environment: str) -> Callable[[World], Row]:
    return lambda world: Row(address(world), "commit", {**world.trusting, **environment}, secrets=(TOKEN, PASSWORD))


def git_netrc(world: World) -> Row:
    world.file("home/.netrc", f"machine 127.0.0.1 login user password {PASSWORD}\n")
    return git_row(lambda world: f"{world.git.url}/app.git", HOME=str(world.root / "home"))(world)


def ssh_row(address: Callable[[World], str]) -> Callable[[World], Row]:
    return lambda world: Row(
        address(world), "commit", world.ssh_environment, secrets=(world.ssh.key.read_text().splitlines()[1],)
    )


def scp_like(world: World) -> Row:
    """It cannot name a port: ssh's own configuration does."""
    port = world.ssh.host.rpartition(":")[2]
    config = f"Host forge\n HostName 127.0.0.1\n Port {port}\n HostKeyAlias [127.0.0.1]:{port}\n"
    world.file("scp/.ssh/config", config)
    context = f"{world.ssh.user}@forge:{world.repository.path}"
    return Row(context, "commit", {**world.ssh_environment, "HOME": str(world.root / "scp")})


def s3_row(key: str, kind: str) -> Callable[[World], Row]:
    return lambda world: Row(f"s3://{BUCKET}{key}", kind, world.s3, secrets=(world.s3["AWS_SECRET_ACCESS_KEY"],))


def gcs_row(key: str, kind: str) -> Callable[[World], Row]:
    return lambda world: Row(f"gs://{BUCKET}{key}", kind, world.gcs, secrets=(ACCESS, private_key(world)))


def private_key(world: World) -> str:
    key: str = json.loads(Path(world.gcs["GOOGLE_APPLICATION_CREDENTIALS"]).read_text())["private_key"]
    return key.splitlines()[1]


def bucket_row(world: World) -> Row:
    row = gcs_row("", "generation")(world)
    return replace(row, context="", argv=("--context=", f"--bucket={BUCKET}"))


def azure_row(path: str, kind: str, credential: str) -> Callable[[World], Row]:
    def row(world: World) -> Row:
        server = world.azure
        signed = signature(server)
        connection = f"AccountName={server.account};BlobEndpoint={server.url};"
        endpoint = {"AZURE_STORAGE_BLOB_ENDPOINT": server.url}
        environment: dict[str, dict[str, str]] = {
            "key": {**endpoint, "AZURE_STORAGE_ACCESS_KEY": server.key},
            "sas": endpoint,
            "connection": {"AZURE_STORAGE_CONNECTION_STRING": f"{connection}AccountKey={server.key}"},
        }
        url = f"{server.url}/{BUCKET}/{path}" + (f"?{signed}" if credential == "sas" else "")
        secrets = (server.key, signed, signed.rpartition("sig=")[2].partition("&")[0])
        return Row(url, kind, environment[credential], ("--context-allow-http",), secrets)

    return row


def azure_identity_row(**environment: str) -> Callable[[World], Row]:
    """With what the webhook for workload identities puts into a pod, or a service principal of the environment."""

    def row(world: World) -> Row:
        server, (entra, proxy) = world.azure_with_tokens, world.entra
        fixed = {
            "AZURE_STORAGE_BLOB_ENDPOINT": server.url,
            "AZURE_AUTHORITY_HOST": "https://login.microsoftonline.com/",
            "https_proxy": proxy,
            "no_proxy": "127.0.0.1",
        }
        found = {**world.trusting, **fixed, "AZURE_TENANT_ID": TENANT, "AZURE_CLIENT_ID": CLIENT, **environment}
        if "AZURE_CLIENT_SECRET" not in environment:
            found["AZURE_FEDERATED_TOKEN_FILE"] = str(world.file("federated-token", TOKEN))
        return Row(f"{server.url}/{BUCKET}/context.tar.gz", "etag", found, (), Granted((TOKEN, PASSWORD), entra))

    return row


def managed_identity_row(world: World) -> Row:
    server, (entra, _) = world.azure_with_tokens, world.entra
    machine = world.stack.enter_context(json_server(entra.answer))
    environment = {"AZURE_STORAGE_BLOB_ENDPOINT": server.url, "AZURE_POD_IDENTITY_AUTHORITY_HOST": machine}
    context = f"{server.url}/{BUCKET}/context.tar.gz"
    return Row(context, "etag", {**world.trusting, **environment}, (), Granted((), entra))


class Granted(Sequence[str]):
    """Secrets, and the tokens that are granted later."""

    def __init__(self, known: tuple[str, ...], entra: Entra) -> None:
        self._known, self._entra, self._before = known, entra, len(entra.granted)

    def _all(self) -> tuple[str, ...]:
        granted = tuple(self._entra.granted[self._before :])
        assert granted, "no token was asked for"
        return (*self._known, *granted)

    def __getitem__(self, index: Any) -> Any:
        return self._all()[index]

    def __len__(self) -> int:
        return len(self._all())


def signature(server: AzuriteServer) -> str:
    found: str = generate_container_sas(
        server.account,
        BUCKET,
        account_key=server.key,
        permission=ContainerSasPermissions(read=True, list=True),
        expiry=datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1),
    )
    return found


ROWS: dict[str, Callable[[World], Row]] = {
    "directory": lambda world: Row(str(world.directory), ""),
    "dir": lambda world: Row(f"dir://{world.directory}", ""),
    "tar": tar_row("plain", bytes),
    "tar, gzip": tar_row("gzip", gzip.compress),
    "tar, bzip2": tar_row("bzip2", bz2.compress),
    "tar, xz": tar_row("xz", lzma.compress),
    "tar, zstd": tar_row("zstd", lambda data: zstandard.ZstdCompressor().compress(data)),
    "tar, stdin": lambda world: Row("tar://stdin", "digest", stdin=ARCHIVE),
    "tar, -": lambda world: Row("tar://-", "digest", stdin=gzip.compress(ARCHIVE)),
    "https": https_row(),
    "https, checksum": https_row(f"/context.tar#sha256={hashlib.sha256(ARCHIVE).hexdigest()}"),
    "https, user in the URL": lambda world: Row(
        f"https://user:{PASSWORD}@{world.site.host}/private/context.tar", "digest", world.trusting, (), (PASSWORD,)
    ),
    "https, netrc": netrc,
    "https, header file": header_file,
    "http": lambda world: Row(f"http://{world.web}/context.tar", "digest", argv=("--context-allow-http",)),
    "git": git_row(lambda world: f"git://{world.git_host}/app.git#refs/heads/main", GIT_TOKEN=TOKEN),
    "git, commit": git_row(
        lambda world: f"git://{world.git_host}/app.git#main#{world.repository.first}", GIT_TOKEN=TOKEN
    ),
    "git, own protocol": git_row(lambda world: f"git://{world.git_daemon}/app.git#v1", GIT_PULL_METHOD="git"),
    "git, https": git_row(lambda world: f"{world.git.url}/app.git#dev:.", GIT_TOKEN=TOKEN),
    "git, query": git_row(
        lambda world: f"{world.git.url}/app.git?branch=main", GIT_USERNAME="user", GIT_PASSWORD=PASSWORD
    ),
    "git, netrc": git_netrc,
    "git, user in the URL": git_row(lambda world: f"https://user:{PASSWORD}@{world.git_host}/app.git"),
    "git+https": git_row(lambda world: f"git+{world.git.url}/app.git#refs/pull/7/head", GIT_TOKEN=TOKEN),
    "git+ssh": ssh_row(lambda world: f"git+ssh://{world.ssh.user}@{world.ssh.host}{world.repository.path}"),
    "ssh": ssh_row(lambda world: f"ssh://{world.ssh.user}@{world.ssh.host}{world.repository.path}#v2"),
    "git@": scp_like,
    "git+file": lambda world: Row(f"git+file://{world.repository.path}", "commit"),
    "s3": s3_row("/context.tar.gz", "etag"),
    "s3, bucket only": s3_row("", "etag"),
    "s3, prefix": s3_row("/tree/", "digest"),
    "gs": gcs_row("/context.tar.gz", "generation"),
    "gs, prefix": gcs_row("/tree/", "digest"),
    "bucket": bucket_row,
    "azure, key": azure_row("context.tar.gz", "etag", "key"),
    "azure, SAS": azure_row("context.tar.gz", "etag", "sas"),
    "azure, connection string": azure_row("context.tar.gz", "etag", "connection"),
    "azure, prefix": azure_row("tree/", "digest", "key"),
    "azure, workload identity": azure_identity_row(),
    "azure, service principal": azure_identity_row(AZURE_CLIENT_SECRET=PASSWORD),
    "azure, managed identity": managed_identity_row,
    "oci": lambda world: Row(world.registry, "digest"),
}


@dataclass(frozen=True)
class Started:
    """A program as strace saw it begin."""

    arguments: str
    environment: str


@dataclass(frozen=True)
class Ran:
    code: int
    log: str
    started: tuple[Started, ...]


def run(row: Row, directory: Path, *argv: str) -> Ran:
    """The address comes from the environment when it has a secret: arguments are visible to everybody."""
    directory.mkdir(exist_ok=True)
    trace = directory / "trace"
    tracer = ["strace", "-f", "-qq", "--seccomp-bpf", "-e", "trace=execve", "-v", "-s", "65536", "-o", str(trace)]
    command = [sys.executable, "-m", "builder", "--no-push", "--verbosity=trace", *row.argv, *argv]
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "HOME": str(directory), **row.environment}
    if row.context:
        environment["LIMPET_CONTEXT"] = row.context
    done = subprocess.run(
        [*(tracer if STRACE else ()), *command],
        cwd=directory,
        env=environment,
        input=row.stdin,
        capture_output=True,
        check=False,
    )
    lines = trace.read_text(errors="replace").splitlines() if STRACE else []
    calls = [re.search(r'execve\("[^"]*", \[(.*?)\], \[(.*)\]\) += 0', line) for line in lines]
    started = tuple(Started(call[1], call[2]) for call in calls if call)
    return Ran(done.returncode, (done.stdout + done.stderr).decode(), started)


@pytest.mark.parametrize("name", ROWS)
def test_from_the_command_line_to_an_image(world: World, name: str, tmp_path: Path) -> None:
    row = ROWS[name](world)
    layout, metadata = tmp_path / "layout", tmp_path / "metadata.json"
    ran = run(row, tmp_path / "cwd", f"--oci-layout-path={layout}", f"--metadata-file={metadata}", "--auto-labels")
    assert ran.code == 0, ran.log
    files, labels = image(layout)
    assert files.items() >= FILES.items()
    assert not [path for path in files if path.startswith(".git/") or path.endswith((".tar", ".gz", ".log"))]
    context = json.loads(metadata.read_text())["context"]
    assert (context.get("revision_kind", ""), bool(context.get("revision"))) == (row.kind, bool(row.kind))
    if row.kind:
        assert f"{row.kind} {context['revision']}" in ran.log
        assert labels["org.opencontainers.image.revision"] == context["revision"]
        assert labels["org.opencontainers.image.source"] == context["source"]
    for secret in row.secrets:
        assert secret not in ran.log + json.dumps(context) + json.dumps(labels)
    if not STRACE:
        pytest.skip("strace is not installed: arguments of programs were not looked at")
    assert ran.started
    for program in ran.started:
        assert not [secret for secret in row.secrets if secret in program.arguments]
    for program in ran.started[1:]:  # the first is Limpet, to whom the environment belongs
        if program.arguments == '"uname", "-p"':
            continue  # Python's own module platform, for the user agent of Azure's library
        shown = re.sub(r'"LIMPET_GIT_PASSWORD=[^"]*"', "", program.environment)
        assert not [secret for secret in row.secrets if secret in shown]


def image(layout: Path) -> tuple[dict[str, bytes], dict[str, str]]:
    """The files of an image's layers, and its labels."""

    def blob(descriptor: dict[str, Any]) -> bytes:
        return (layout / "blobs" / descriptor["digest"].replace(":", "/")).read_bytes()

    manifest = json.loads(blob(json.loads((layout / "index.json").read_text())["manifests"][0]))
    files: dict[str, bytes] = {}
    for layer in manifest["layers"]:
        with tarfile.open(fileobj=io.BytesIO(blob(layer))) as tar:
            files |= {member.name: extracted(tar, member) for member in tar if member.isfile()}
    return files, json.loads(blob(manifest["config"]))["config"].get("Labels", {})


def extracted(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    assert file is not None
    return file.read()


def test_refusals_of_a_registry(tmp_path: Path) -> None:
    """They name the artifact, where a credential was looked for, and where to put one."""
    if reason := registry_server.missing():
        pytest.skip(reason)
    with registry_server.docker_registry(tmp_path / "registry", users={"user": PASSWORD}) as server:
        stranger = run(Row(f"oci://{server.host}/context:1", ""), tmp_path / "cwd")
        assert stranger.code == 1
        assert re.search(rf"error: {server.host}/context: .*401", stranger.log)
        assert f"no credential for {server.host}" in stranger.log
        login = base64_of(f"user:{PASSWORD}")
        config = {"auths": {server.host: {"auth": login}}}
        (tmp_path / "docker").mkdir()
        (tmp_path / "docker" / "config.json").write_text(json.dumps(config))
        known = {"DOCKER_CONFIG": str(tmp_path / "docker")}
        absent = run(Row(f"oci://{server.host}/context:1", "", known), tmp_path / "cwd")
        assert absent.code == 1
        assert re.search(rf"error: {server.host}/context.*404|not found", absent.log)
        for secret in (PASSWORD, login):
            assert secret not in stranger.log + absent.log


def test_an_error_is_a_line_with_a_hint(world: World, tmp_path: Path) -> None:
    """No traceback unless all is to be traced, whatever an SDK raises; not even then a credential."""
    dead = {"AZURE_STORAGE_BLOB_ENDPOINT": f"http://127.0.0.1:{free_port()}/account"}
    signed = signature(world.azure)
    sig = signed.rpartition("sig=")[2].partition("&")[0]
    url = f"{dead['AZURE_STORAGE_BLOB_ENDPOINT']}/c/b?{signed}"
    nobody = Row(url, "", dead, ("--context-allow-http",), (sig,))
    rows = {
        "s3": (s3_row("/absent.tar", "etag")(world), "no such object"),
        "gs": (gcs_row("/absent.tar", "generation")(world), "no such object"),
        "azure": (azure_row("absent.tar", "etag", "key")(world), "no such blob or container"),
        "https": (https_row("/absent.tar")(world), "404 Not Found"),
        "git": (git_row(lambda world: f"{world.git.url}/absent.git", GIT_TOKEN=TOKEN)(world), "no such repository"),
    }
    for name, (row, said) in rows.items():
        ran = run(row, tmp_path / name, "--verbosity=info")
        assert (ran.code, len(re.findall(r"^error: ", ran.log, re.MULTILINE))) == (1, 1), ran.log
        assert said in ran.log, name
        assert "Traceback" not in ran.log, name
    rows["azure, nobody there"] = (nobody, "5 times")
    for name, (row, said) in rows.items():
        ran = run(row, tmp_path / name)
        assert ran.code in (1, 75)
        assert said in ran.log, name
        assert not [secret for secret in row.secrets if secret in ran.log], name
