"""Flags of registries and credentials, as pipelines give them to the executor."""

from __future__ import annotations

import base64
import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.build.program import tags
from tests.kaniko.forks import Done, Forks
from tests.servers.certificates import Authority
from tests.servers.front import Answer, Front, front
from tests.servers.registry import RegistryServer, docker_registry, missing
from tests.servers.tokens import TokenServer, token_server

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing() or "docker-registry is there")

GOOGLE = b'{"errors":[{"code":"DENIED","message":"The repository has enabled tag immutability"}]}'


class Executor:
    """Runs the executor with a context of one file."""

    def __init__(self, forks: Forks, directory: Path) -> None:
        self._forks = forks
        self.directory = directory
        context = directory / "context"
        context.mkdir()
        (context / "Dockerfile").write_text("FROM scratch\nCOPY file /\n")
        (context / "file").write_text("x")

    def config(self, **auths: str) -> None:
        """A config.json; each of `auths` (`/` for `__`) is user:password."""
        docker = self.directory / ".docker"
        docker.mkdir(exist_ok=True)
        entries = {key: {"auth": base64.b64encode(pair.encode()).decode()} for key, pair in auths.items()}
        (docker / "config.json").write_text(json.dumps({"auths": entries}))

    def dockerfile(self, text: str) -> None:
        (self.directory / "context/Dockerfile").write_text(text)

    def run(self, *arguments: str, **env: str) -> Done:
        usual = {"PATH": os.environ["PATH"], "HOME": str(self.directory), "TMPDIR": str(self.directory)}
        return self._forks.run([f"--context={self.directory}/context", *arguments], {**usual, **env}, self.directory)

    def succeeds(self, *arguments: str, **env: str) -> str:
        done = self.run(*arguments, **env)
        assert done.code == 0, done.err
        return done.err

    def fails(self, *arguments: str, **env: str) -> str:
        done = self.run(*arguments, **env)
        assert done.code != 0
        assert "Traceback" not in done.err
        return done.err


@pytest.fixture
def run(executor: Forks, tmp_path: Path) -> Executor:
    directory = tmp_path / "run"
    directory.mkdir()
    return Executor(executor, directory)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    with docker_registry(tmp_path_factory.mktemp("plain")) as server:
        yield server


@pytest.fixture
def shop(plain: RegistryServer) -> Iterator[Front]:
    with front(plain.host) as server:
        yield server


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def tokens(authority: Authority, tmp_path: Path) -> Iterator[tuple[TokenServer, RegistryServer]]:
    """A registry, and the server whose tokens it takes: ada may do anything below org-a, bob below org-b."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(token_server(authority.server("signer")))
        server.passwords = {"ada": "ada-password", "bob": "bob-password"}
        server.may = {"ada": {"org-a/": "pull,push"}, "bob": {"org-b/": "pull,push"}}
        yield server, stack.enter_context(docker_registry(tmp_path / "with-tokens", token=server.auth))


def test_an_immutable_tag_does_not_keep_others_from_being_set(
    run: Executor, plain: RegistryServer, shop: Front
) -> None:
    names = [f"--destination={shop.host}/immutable:{tag}" for tag in ("fixed", "free")]
    shop.fault(Answer(400, {"Content-Type": "application/json"}, GOOGLE), "PUT", "manifests/fixed", times=2)
    log = run.fails(*names)
    assert "tag immutability" in log
    assert tags(plain.host, "immutable") == []
    log = run.succeeds(*names, "--push-ignore-immutable-tag-errors")
    assert f"{shop.host}/immutable:fixed: the tag is immutable and exists already" in log
    assert tags(plain.host, "immutable") == ["free"]


def test_push_retry(run: Executor, plain: RegistryServer, shop: Front) -> None:
    shop.fault(Answer(403), "PUT", "manifests/")
    log = run.succeeds(f"--destination={shop.host}/retried:1", "--push-retry=1")
    assert "Retrying operation after 1s due to" in log
    assert tags(plain.host, "retried") == ["1"]


def test_path_scoped_credentials_go_where_they_belong(
    run: Executor, tokens: tuple[TokenServer, RegistryServer]
) -> None:
    server, registry = tokens
    run.config(**{f"{registry.host}/org-a": "ada:ada-password", f"{registry.host}/org-b": "bob:bob-password"})
    log = run.succeeds(
        f"--destination={registry.host}/org-a/app:1", f"--destination={registry.host}/org-b/app:1", "--verbosity=debug"
    )
    for org in ("org-a", "org-b"):
        assert f"credential for {registry.host}/{org}/app: password from" in log
        assert f"(entry {registry.host}/{org})" in log
    assert "ada-password" not in log
    assert {(asked.by, scope.split("/")[0]) for asked in server.asked for scope in asked.scopes if "push" in scope} == {
        ("ada", "repository:org-a"),
        ("bob", "repository:org-b"),
    }


def test_a_refusal_says_whose_credential_was_refused(run: Executor, tokens: tuple[TokenServer, RegistryServer]) -> None:
    _, registry = tokens
    run.config(**{registry.host: "ada:ada-password"})
    log = run.fails(f"--destination={registry.host}/org-b/app:1")
    assert f"{registry.host}/org-b/app" in log
    assert f"config.json (entry {registry.host}) does not allow it" in log
    run.config()
    log = run.fails(f"--destination={registry.host}/org-b/app:1")
    assert f"no credential for {registry.host}/org-b/app" in log
    assert "the environment (env, google, ecr, acr, gitlab)" in log


def test_credential_helpers_are_chosen(run: Executor, tmp_path: Path) -> None:
    with docker_registry(tmp_path / "closed", users={"robot": "pass-word"}) as closed:
        host = closed.host.replace(".", "_").replace(":", "_")
        env = {f"KANIKO_{host}_USER": "robot", f"KANIKO_{host}_PASSWORD": "pass-word"}
        destination = f"--destination={closed.host}/app:1"
        log = run.succeeds(destination, "--verbosity=debug", **env)
        assert f"password from KANIKO_{host}_USER and KANIKO_{host}_PASSWORD" in log
        assert "pass-word" not in log
        for none_of_it in ("--credential-helpers=", "--credential-helpers=gitlab"):
            assert "401" in run.fails(destination, none_of_it, **env)
        gitlab = {"CI_REGISTRY": closed.host, "CI_REGISTRY_USER": "robot", "CI_REGISTRY_PASSWORD": "pass-word"}
        run.succeeds(destination, "--credential-helpers=gitlab", **gitlab)
        auth = base64.b64encode(b"robot:pass-word").decode()
        run.succeeds(destination, DOCKER_AUTH_CONFIG=json.dumps({"auths": {closed.host: {"auth": auth}}}))
        podman = run.directory / "auth.json"
        podman.write_text(json.dumps({"auths": {closed.host: {"auth": auth}}}))
        run.succeeds(destination, REGISTRY_AUTH_FILE=str(podman))


def test_tls_by_flag(run: Executor, authority: Authority, tmp_path: Path) -> None:
    pair = authority.server("127.0.0.1")
    with docker_registry(tmp_path / "tls", certificate=(pair.certificate, pair.key)) as registry:
        destination = f"--destination={registry.host}/app:1"
        assert f"--registry-certificate={registry.host}=CA.pem" in run.fails(destination)
        run.succeeds(destination, f"--registry-certificate={registry.host}={authority.certificate}")
        run.succeeds(destination, f"--skip-tls-verify-registry={registry.host}")
        run.succeeds(destination, "--skip-tls-verify")
        assert "not trusted" in run.fails(destination, "--skip-tls-verify-pull")
        run.dockerfile(f"FROM {registry.host}/app:1\nENV A=1\n")
        assert "not trusted" in run.fails("--no-push", "--skip-tls-verify")
        run.succeeds("--no-push", "--skip-tls-verify-pull")


@pytest.mark.parametrize(
    "mirror",
    [
        "docker.io={host}",
        "index.docker.io=http://{host}",
        "docker.io={host}/without;docker.io={host}",
        "docker.io={host}/hub",
    ],
)
def test_registry_maps(run: Executor, plain: RegistryServer, mirror: str) -> None:
    prefix = "hub/" if mirror.endswith("/hub") else ""
    run.succeeds(f"--destination={plain.host}/{prefix}team/base:1")
    run.dockerfile("FROM team/base:1\nENV A=1\n")
    spelled = mirror.format(host=plain.host)
    log = run.succeeds("--no-push", f"--registry-map={spelled}", "--skip-default-registry-fallback")
    assert f"Retrieving image docker.io/team/base:1 from registry {plain.host}" in log
    assert run.succeeds("--no-push", "--skip-default-registry-fallback", KANIKO_REGISTRY_MAP=spelled)
    if ";" in mirror:
        assert f"{plain.host}/without/team/base" in log


def test_registry_mirrors_of_the_variable_come_last(run: Executor, plain: RegistryServer) -> None:
    run.succeeds(f"--destination={plain.host}/team/mirrored:1")
    run.dockerfile("FROM team/mirrored:1\nENV A=1\n")
    log = run.succeeds("--no-push", f"--registry-mirror={plain.host}/without", KANIKO_REGISTRY_MIRROR=plain.host)
    assert f"{plain.host}/without/team/mirrored" in log


def test_no_mirror_has_it(run: Executor, plain: RegistryServer) -> None:
    run.dockerfile("FROM team/nobody:1\nENV A=1\n")
    log = run.fails("--no-push", f"--registry-mirror={plain.host}", "--skip-default-registry-fallback")
    assert "team/nobody" in log
    assert plain.host in log


def test_login_then_push(run: Executor, tmp_path: Path) -> None:
    with docker_registry(tmp_path / "closed", users={"robot": "pass-word"}) as closed:
        config = run.directory / "elsewhere"
        run.directory.joinpath("context/file").write_text("y")
        arguments = ["login", closed.host, "--username=robot", "--password=pass-word"]
        env = {"PATH": os.environ["PATH"], "HOME": str(run.directory), "DOCKER_CONFIG": str(config)}
        done = run._forks.run(arguments, env, run.directory)
        assert done.code == 0, done.err
        assert (config / "config.json").stat().st_mode & 0o777 == 0o600
        run.succeeds(f"--destination={closed.host}/app:1", DOCKER_CONFIG=str(config))
