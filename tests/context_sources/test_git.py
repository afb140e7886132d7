"""git repositories from real servers: http-backend over TLS, sshd, git daemon, local files."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.errors import ContextError, UsageError
from context_sources import FetchSettings, GitOptions, Limits
from context_sources.git import checkout
from context_sources.git_address import parse
from context_sources.git_failure import explained
from context_sources.git_program import GitFailed
from tests.context_sources.conftest import FILES, QUICK, Fetcher, Repository, git, make_repository, tree
from tests.servers import git_http, ssh
from tests.servers.certificates import Authority
from tests.servers.git_daemon import git_daemon
from tests.servers.git_http import GitServer
from tests.servers.ssh import SshServer, ssh_agent, ssh_server
from tests.servers.web import web_server

TOKEN = "token-0123456789"
PASSWORD = "password-0123456789"
LFS_DATA = b"a large file\n" * 1000


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    root = tmp_path_factory.mktemp("git")
    return make_repository(root / "app.git", root / "work")


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, authority: Authority, repository: Repository
) -> Iterator[GitServer]:
    """Lets `user` with PASSWORD, and any name with TOKEN, read."""
    if reason := git_http.missing():
        pytest.skip(reason)
    users = {"user": PASSWORD, "*": TOKEN}
    with git_http.git_http(tmp_path_factory.mktemp("https"), tls=authority.server(), users=users) as running:
        shutil.copytree(repository.path, running.root / "app.git")
        shutil.copytree(repository.path, running.root / "forbidden.git")
        running.forbidden = "forbidden.git"
        yield running


@pytest.fixture
def trusting(authority: Authority) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "SSL_CERT_FILE": str(authority.certificate), "HOME": "/nonexistent"}


@pytest.fixture
def with_token(trusting: dict[str, str]) -> dict[str, str]:
    return {**trusting, "GIT_TOKEN": TOKEN}


def version(fetcher: Fetcher, location: str, **options: object) -> str:
    fetched = fetcher(location, **options)
    return (fetched.path / "version").read_text() + " " + fetched.revision


def test_every_way_to_name_a_commit(repository: Repository, fetcher: Fetcher) -> None:
    expected = {
        "": ("2", repository.main),
        "#main": ("2", repository.main),
        "#dev": ("dev", repository.dev),
        "#v1": ("1", repository.first),
        "#v2": ("dev", repository.dev),
        "#tags/v1": ("1", repository.first),
        "#heads/dev": ("dev", repository.dev),
        "#refs/tags/v2": ("dev", repository.dev),
        "#refs/heads/dev": ("dev", repository.dev),
        "#refs/pull/7/head": ("pull", repository.pull),
        "#pull/7/head": ("pull", repository.pull),
        f"#{repository.first}": ("1", repository.first),
        f"#{repository.first.upper()}": ("1", repository.first),
        f"#{repository.first[:8]}": ("1", repository.first),
        f"#{repository.dev[:8]}": ("dev", repository.dev),
        f"#{repository.pull}": ("pull", repository.pull),
        "?branch=dev": ("dev", repository.dev),
        "?tag=v1": ("1", repository.first),
        f"?ref=main&checksum={repository.main[:10]}": ("2", repository.main),
    }
    for suffix, (text, commit) in expected.items():
        assert version(fetcher, f"git+file://{repository.path}{suffix}") == f"{text} {commit}", suffix


def test_the_tree_is_a_plain_directory(repository: Repository, fetcher: Fetcher) -> None:
    fetched = fetcher(f"git+file://{repository.path}")
    assert {name: data for name, data in tree(fetched.path).items() if name in FILES} == FILES
    assert sorted(os.listdir(fetched.path)) == ["Dockerfile", "empty", "link", "run.sh", "src", "version"]
    assert os.access(fetched.path / "run.sh", os.X_OK)
    assert os.readlink(fetched.path / "link") == "src/main.c"
    assert (fetched.source, fetched.revision_kind) == (f"file://{repository.path}", "commit")


def test_a_subdirectory(repository: Repository, fetcher: Fetcher) -> None:
    assert os.listdir(fetcher(f"git+file://{repository.path}#main:src").path) == ["main.c"]
    assert os.listdir(fetcher(f"git+file://{repository.path}#main", sub_path="src").path) == ["main.c"]
    with pytest.raises(ContextError, match="absent is not a directory"):
        fetcher(f"git+file://{repository.path}#main:absent")


def test_git_options(repository: Repository, fetcher: Fetcher) -> None:
    location = f"git+file://{repository.path}"
    assert version(fetcher, location, git=GitOptions(branch="dev")) == f"dev {repository.dev}"
    assert version(fetcher, location, git=GitOptions(branch="v1")) == f"1 {repository.first}"
    assert version(fetcher, f"{location}#dev", git=GitOptions(branch="main")) == f"2 {repository.main}"
    with pytest.raises(ContextError, match="is called nope"):
        fetcher(location, git=GitOptions(branch="nope"))


def test_the_git_directory_is_kept_when_asked(repository: Repository, fetcher: Fetcher) -> None:
    kept = fetcher(f"git+file://{repository.path}?keep-git-dir#v2").path
    assert git("rev-parse", "HEAD", cwd=kept) == repository.dev
    assert git("describe", "--tags", cwd=kept) == "v2"
    assert git("status", "--porcelain", cwd=kept) == ""
    assert git("rev-list", "--count", "HEAD", cwd=kept) == "1"
    options = GitOptions(keep_git_dir=True, depth=0)
    whole = fetcher(f"git+file://{repository.path}", git=options).path
    assert git("rev-list", "--count", "HEAD", cwd=whole) == "2"
    assert git("describe", "--tags", "--long", cwd=whole).startswith("v1-1-g")
    assert git("rev-parse", "origin/dev", cwd=whole) == repository.dev
    single = fetcher(
        f"git+file://{repository.path}", git=GitOptions(keep_git_dir=True, depth=0, single_branch=True)
    ).path
    assert git("for-each-ref", cwd=single) == ""


def test_what_is_not_there(repository: Repository, fetcher: Fetcher) -> None:
    location = f"git+file://{repository.path}"
    for ref in ("nope", "refs/heads/nope", "abcdef1", "0" * 40):
        with pytest.raises(ContextError, match=ref) as caught:
            fetcher(f"{location}#{ref}")
        assert str(repository.path) in str(caught.value)
        assert os.listdir(fetcher.into) == []
    with pytest.raises(ContextError, match="no such repository"):
        fetcher(f"{location}-absent")
    with pytest.raises(ContextError, match=f"is commit {repository.main}, not {repository.dev}"):
        fetcher(f"{location}?checksum={repository.dev}#main")


def test_a_repository_without_commits(tmp_path: Path, fetcher: Fetcher) -> None:
    git("init", "-q", "--bare", str(tmp_path / "empty.git"), cwd=tmp_path)
    with pytest.raises(ContextError, match="has no commit"):
        fetcher(f"git+file://{tmp_path}/empty.git")


def test_sha256_repositories(tmp_path: Path, fetcher: Fetcher) -> None:
    work = tmp_path / "work"
    work.mkdir()
    git("init", "-q", "--object-format=sha256", cwd=work)
    (work / "a").write_text("1")
    git("add", ".", cwd=work)
    git("commit", "-q", "-m", "1", cwd=work)
    assert len(fetcher(f"git+file://{work}").revision) == 64
    assert len(fetcher(f"git+file://{work}#{git('rev-parse', 'HEAD', cwd=work)}").revision) == 64


def test_a_repository_of_another_user(repository: Repository, tmp_path: Path, fetcher: Fetcher) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs uid 0 to give files away")
    path = tmp_path / "other.git"
    shutil.copytree(repository.path, path)
    for directory, _, names in os.walk(path):
        for name in (".", *names):
            os.chown(os.path.join(directory, name), 1234, 1234)
    assert version(fetcher, f"git+file://{path}") == f"2 {repository.main}"


def test_a_token_over_https(
    server: GitServer, repository: Repository, with_token: dict[str, str], fetcher: Fetcher
) -> None:
    fetched = fetcher(f"{server.url}/app.git#dev", with_token)
    assert (fetched.revision, fetched.source) == (repository.dev, f"{server.url}/app.git")
    assert {user for _, user in server.seen} - {""} == {"oauth2"}
    assert TOKEN not in fetcher.log


def test_kanikos_form_uses_https(
    server: GitServer, repository: Repository, with_token: dict[str, str], fetcher: Fetcher
) -> None:
    location = server.url.replace("https://", "git://") + "/app.git"
    assert fetcher(location, with_token).revision == repository.main
    assert fetcher(f"{location}#refs/heads/dev", with_token).revision == repository.dev
    assert fetcher(f"{location}#main#{repository.first}", with_token).revision == repository.first
    assert fetcher(f"{location}#{repository.first}", with_token).revision == repository.first


@pytest.mark.parametrize(
    ("environment", "userinfo"),
    [
        ({"GIT_USERNAME": "user", "GIT_PASSWORD": PASSWORD}, ""),
        ({"GIT_USERNAME": "user", "GIT_PASSWORD": PASSWORD + "\n"}, ""),
        ({"GIT_PASSWORD": PASSWORD}, "user@"),
        ({"GIT_TOKEN": TOKEN, "GIT_USERNAME": "someone"}, ""),
        ({"GIT_TOKEN": TOKEN}, "ignored:wrong@"),
        ({}, f"user:{PASSWORD}@"),
    ],
)
def test_ways_to_log_in(
    server: GitServer, trusting: dict[str, str], fetcher: Fetcher, environment: dict[str, str], userinfo: str
) -> None:
    location = server.url.replace("://", f"://{userinfo}") + "/app.git?keep-git-dir"
    fetched = fetcher(location, {**trusting, **environment})
    assert userinfo == "" or userinfo not in fetched.source
    kept = b"".join(data for name, data in tree(fetched.path).items() if name.startswith(".git/"))
    assert PASSWORD.encode() not in kept
    assert TOKEN.encode() not in kept


def test_netrc_and_credential_helpers_of_the_home_directory(
    server: GitServer, trusting: dict[str, str], tmp_path: Path, fetcher: Fetcher
) -> None:
    """What Tekton puts into $HOME from a secret annotated for git."""
    for name in ("netrc", "store"):
        (tmp_path / name).mkdir()
    (tmp_path / "netrc" / ".netrc").write_text(f"machine 127.0.0.1 login user password {PASSWORD}\n")
    (tmp_path / "store" / ".gitconfig").write_text(
        f"[credential]\n\thelper = store --file {tmp_path}/store/.git-credentials\n"
    )
    (tmp_path / "store" / ".git-credentials").write_text(server.url.replace("://", f"://user:{PASSWORD}@") + "\n")
    for name in ("netrc", "store"):
        fetcher(f"{server.url}/app.git", {**trusting, "HOME": str(tmp_path / name)})
    before = (tmp_path / "store" / ".git-credentials").read_text()
    fetcher(f"{server.url}/app.git", {**trusting, "HOME": str(tmp_path / "store"), "GIT_TOKEN": TOKEN})
    assert (tmp_path / "store" / ".git-credentials").read_text() == before


def test_a_number_in_the_address_is_no_status() -> None:
    text = "fatal: Authentication failed for 'https://h:40391/app.git/'"
    error = explained(GitFailed("fetch", 128, text), parse("https://h:40391/app.git"), None)
    assert "authentication failed" in error.message


@pytest.mark.parametrize(
    ("location", "message", "hint"),
    [
        ("ssh://git@127.0.0.1:1/x.git", "ssh: connect to host 127.0.0.1 port 1: Connection refused", ""),
        ("git+file:///nonexistent/x.git", "git file:///nonexistent/x.git: no such repository$", "check the address"),
    ],
)
def test_the_reason_is_told_not_what_git_makes_of_it(
    location: str, message: str, hint: str, trusting: dict[str, str], fetcher: Fetcher
) -> None:
    with pytest.raises(ContextError, match=message) as caught:
        fetcher(location, trusting)
    assert (caught.value.hint or "") == hint
    assert "exit code" not in fetcher.log


def test_refusals_name_the_credential(server: GitServer, trusting: dict[str, str], fetcher: Fetcher) -> None:
    with pytest.raises(ContextError, match="asks for a login and no credential is set") as caught:
        fetcher(f"{server.url}/app.git", trusting)
    assert "GIT_TOKEN" in caught.value.hint
    wrong = {**trusting, "GIT_TOKEN": "wrong-wrong"}
    with pytest.raises(ContextError, match="authentication failed; the credential was GIT_TOKEN of the environment"):
        fetcher(f"{server.url}/app.git", wrong)
    right = {**trusting, "GIT_TOKEN": TOKEN}
    with pytest.raises(ContextError, match="403 forbidden; the credential was GIT_TOKEN"):
        fetcher(f"{server.url}/forbidden.git", right)
    with pytest.raises(ContextError, match="no such repository, or it is hidden from this credential"):
        fetcher(f"{server.url}/absent.git", right)
    assert "wrong-wrong" not in fetcher.log


def test_a_strange_certificate(server: GitServer, with_token: dict[str, str], fetcher: Fetcher) -> None:
    environment = {name: value for name, value in with_token.items() if name != "SSL_CERT_FILE"}
    with pytest.raises(ContextError, match="certificate is not trusted") as caught:
        fetcher(f"{server.url}/app.git", environment)
    assert "SSL_CERT_FILE" in caught.value.hint
    fetcher(f"{server.url}/app.git", environment, git=GitOptions(insecure_skip_tls=True))


def test_a_cut_connection_is_tried_again(server: GitServer, with_token: dict[str, str], fetcher: Fetcher) -> None:
    server.cuts = 2
    fetcher(f"{server.url}/app.git", with_token)
    assert server.cuts == 0
    assert "trying again" in fetcher.log
    server.cuts = 99
    try:
        with pytest.raises(ContextError) as caught:
            fetcher(f"{server.url}/app.git", with_token)
    finally:
        server.cuts = 0
    assert caught.value.transient


def test_plain_http_must_be_allowed(
    tmp_path: Path, repository: Repository, trusting: dict[str, str], fetcher: Fetcher
) -> None:
    with git_http.git_http(tmp_path / "http") as plain:
        shutil.copytree(repository.path, plain.root / "app.git")
        with pytest.raises(UsageError) as caught:
            fetcher(f"{plain.url}/app.git", trusting)
        assert "--context-allow-http" in caught.value.hint
        fetcher(f"{plain.url}/app.git", trusting, allow_http=True)
        fetcher(plain.url.replace("http://", "git://") + "/app.git", {**trusting, "GIT_PULL_METHOD": "http"})


def test_servers_that_only_have_files(
    tmp_path: Path, repository: Repository, trusting: dict[str, str], fetcher: Fetcher
) -> None:
    """The dumb protocol can neither be shallow nor give single commits."""
    with web_server(tmp_path / "web") as plain:
        shutil.copytree(repository.path, plain.root / "app.git")
        location = f"http://{plain.host}/app.git"
        assert fetcher(f"{location}#dev", trusting, allow_http=True).revision == repository.dev
        assert fetcher(f"{location}#{repository.first}", trusting, allow_http=True).revision == repository.first


def test_gits_own_protocol(repository: Repository, fetcher: Fetcher) -> None:
    environment = {"PATH": os.environ["PATH"], "GIT_PULL_METHOD": "git"}
    with git_daemon(repository.path.parent) as host:
        assert fetcher(f"git://{host}/app.git#dev", environment).revision == repository.dev
        assert fetcher(f"git://{host}/app.git#{repository.first[:9]}", environment).revision == repository.first
        with pytest.raises(ContextError, match="no such repository"):
            fetcher(f"git://{host}/absent.git", environment)


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    if reason := ssh.missing():
        pytest.skip(reason)
    with ssh_server(tmp_path_factory.mktemp("ssh")) as running:
        yield running


def test_ssh(sshd: SshServer, repository: Repository, tmp_path: Path, fetcher: Fetcher) -> None:
    location = f"ssh://{sshd.user}@{sshd.host}{repository.path}"
    path = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
    known = {**path, "GIT_SSH_KNOWN_HOSTS_FILE": str(sshd.known_hosts)}
    mounted = tmp_path / "mounted-key"  # as a secret is mounted: others may read it, and the last newline is gone
    mounted.write_bytes(sshd.key.read_bytes().rstrip(b"\n"))
    mounted.chmod(0o644)
    fetched = fetcher(f"{location}#dev", {**known, "GIT_SSH_KEY_FILE": str(mounted)})
    assert (fetched.revision, fetched.source) == (repository.dev, f"ssh://{sshd.host}{repository.path}")
    fetcher(f"git+{location}", {**known, "GIT_SSH_KEY_FILE": str(mounted)})
    with ssh_agent(tmp_path / "agent", sshd.key) as socket:
        fetcher(location, {**known, "SSH_AUTH_SOCK": str(socket)})
    with pytest.raises(ContextError, match="accepts none of the ssh keys") as caught:
        fetcher(location, {**known, "GIT_SSH_KEY_FILE": str(sshd.stranger)})
    assert "GIT_SSH_KEY_FILE" in caught.value.hint
    with pytest.raises(ContextError, match="not among the known hosts") as caught:
        fetcher(location, {**path, "GIT_SSH_KEY_FILE": str(sshd.key)})
    assert "GIT_SSH_KNOWN_HOSTS_FILE" in caught.value.hint
    with pytest.raises(UsageError, match="GIT_SSH_KEY_FILE=/absent"):
        fetcher(location, {**known, "GIT_SSH_KEY_FILE": "/absent"})


def test_ssh_keys_of_the_home_directory(
    sshd: SshServer, repository: Repository, tmp_path: Path, fetcher: Fetcher
) -> None:
    """$HOME is what counts: ssh itself would look where /etc/passwd says."""
    directory = tmp_path / "home" / ".ssh"
    directory.mkdir(parents=True)
    (directory / "id_ed25519").write_bytes(sshd.key.read_bytes())
    (directory / "known_hosts").write_bytes(sshd.known_hosts.read_bytes())
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path / "home")}
    assert fetcher(f"ssh://{sshd.user}@{sshd.host}{repository.path}", environment).revision == repository.main


def test_scp_like_addresses(sshd: SshServer, repository: Repository, tmp_path: Path, fetcher: Fetcher) -> None:
    """They cannot name a port, so ssh is told by its own configuration."""
    directory = tmp_path / "home" / ".ssh"
    directory.mkdir(parents=True)
    (directory / "config").write_text(
        f"Host forge\n  HostName 127.0.0.1\n  Port {sshd.host.rpartition(':')[2]}\n  IdentityFile {sshd.key}\n"
        f"  HostKeyAlias [127.0.0.1]:{sshd.host.rpartition(':')[2]}\n"
    )
    (directory / "known_hosts").write_bytes(sshd.known_hosts.read_bytes())
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path / "home")}
    assert fetcher(f"{sshd.user}@forge:{repository.path}#dev", environment).revision == repository.dev


def with_submodule(server: GitServer, work: Path, address: str) -> None:
    """Serve `parent.git`, with the submodule `lib` at `address`."""

    def add(directory: Path) -> None:
        (directory / ".gitmodules").write_text(f'[submodule "lib"]\n\tpath = lib\n\turl = {address}\n')
        commit = git("rev-parse", "v1^{commit}", cwd=server.root / "app.git")
        git("update-index", "--add", "--cacheinfo", f"160000,{commit},lib", cwd=directory)
        (directory / "lib").mkdir()

    shutil.rmtree(server.root / "parent.git", ignore_errors=True)
    make_repository(server.root / "parent.git", work, add)


def test_submodules(server: GitServer, with_token: dict[str, str], tmp_path: Path, fetcher: Fetcher) -> None:
    with_submodule(server, tmp_path / "work", "../app.git")
    location = f"{server.url}/parent.git"
    whole = fetcher(location, with_token).path
    assert (whole / "lib" / "version").read_text() == "1"  # the commit that is recorded, not the branch's
    assert not [name for name in tree(whole) if ".git/" in name or name.endswith("/.git")]
    assert not (whole / ".git").exists()
    for without in (f"{location}?submodules=false", location.replace("https://", "git://")):
        assert os.listdir(fetcher(without, with_token).path / "lib") == []
    kanikos = fetcher(location.replace("https://", "git://"), with_token, git=GitOptions(recurse_submodules=True))
    assert (kanikos.path / "lib" / "version").read_text() == "1"


def test_a_submodule_elsewhere_does_not_get_the_credential(
    server: GitServer, authority: Authority, with_token: dict[str, str], tmp_path: Path, fetcher: Fetcher
) -> None:
    with git_http.git_http(tmp_path / "other", tls=authority.server(), users={"*": TOKEN}) as other:
        shutil.copytree(server.root / "app.git", other.root / "app.git")
        with_submodule(server, tmp_path / "work", f"{other.url}/app.git")
        with pytest.raises(ContextError):
            fetcher(f"{server.url}/parent.git", with_token)
        assert {user for _, user in other.seen} == {""}


def test_a_submodule_cannot_be_a_local_file(
    server: GitServer, repository: Repository, with_token: dict[str, str], tmp_path: Path, fetcher: Fetcher
) -> None:
    with_submodule(server, tmp_path / "work", f"file://{repository.path}")
    with pytest.raises(ContextError, match="'file' not allowed"):
        fetcher(f"{server.url}/parent.git", with_token)


@pytest.fixture
def with_lfs(server: GitServer, authority: Authority, tmp_path: Path) -> str:
    """Push a file under LFS to lfs.git; the repository's URL."""
    if not shutil.which("git-lfs"):
        pytest.skip("git-lfs is not installed")
    shutil.rmtree(server.root / "lfs.git", ignore_errors=True)
    git("init", "-q", "--bare", str(server.root / "lfs.git"), cwd=tmp_path)
    git("config", "http.receivepack", "true", cwd=server.root / "lfs.git")
    work = tmp_path / "lfs-work"
    work.mkdir()
    environment = {
        "GIT_SSL_CAINFO": str(authority.certificate),
        "GIT_CONFIG_GLOBAL": str(tmp_path / "lfs-config"),
        "HOME": str(tmp_path),
    }
    (tmp_path / ".git-credentials").write_text(server.url.replace("://", f"://x:{TOKEN}@") + "\n")
    git("lfs", "install", "--skip-repo", cwd=tmp_path, **environment)
    git("config", "--global", "credential.helper", "store", cwd=tmp_path, **environment)
    git("init", "-q", "-b", "main", cwd=work, **environment)
    (work / ".gitattributes").write_text("*.bin filter=lfs diff=lfs merge=lfs -text\n")
    (work / "large.bin").write_bytes(LFS_DATA)
    git("add", ".", cwd=work, **environment)
    git("commit", "-q", "-m", "1", cwd=work, **environment)
    git("push", "-q", f"{server.url}/lfs.git", "main", cwd=work, **environment)
    return f"{server.url}/lfs.git"


def test_lfs(with_lfs: str, with_token: dict[str, str], tmp_path: Path, fetcher: Fetcher) -> None:
    fetched = fetcher(f"{with_lfs}#main", with_token)
    assert tree(fetched.path)["large.bin"] == LFS_DATA
    assert TOKEN not in fetcher.log
    with pytest.raises(ContextError, match="more than 5000 bytes"):
        fetcher(f"{with_lfs}#main", with_token, limits=Limits(size=5000))


@pytest.mark.parametrize(
    "reason", ["[404] Object does not exist on the server", "batch response: Not found: https://h/app.git/info/lfs"]
)
def test_a_file_that_the_lfs_server_does_not_give_is_named(reason: str) -> None:
    said = [
        f"Error downloading object: large.bin (aaaaaaa): Smudge error: Error downloading large.bin (aaaa): {reason}",
        "error: external filter 'git-lfs filter-process' failed",
        "fatal: large.bin: smudge filter lfs failed",
    ]
    error = explained(GitFailed("checkout", 128, "\n".join(said)), parse("https://h/app.git"), None)
    assert error.message == f"git https://h/app.git: git LFS: large.bin (aaaa): {reason}"


def test_lfs_without_git_lfs_is_an_error(
    with_lfs: str, with_token: dict[str, str], tmp_path: Path, fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pointer in place of the file would build, and be wrong."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("git", "sh", "env"):
        found = shutil.which(name)
        assert found is not None
        (programs / name).symlink_to(found)
    with pytest.raises(ContextError, match="git-lfs is not installed"):
        fetcher(f"{with_lfs}#main", {**with_token, "PATH": str(programs)})


def test_a_tree_that_is_too_large_is_not_checked_out(repository: Repository, fetcher: Fetcher) -> None:
    with pytest.raises(ContextError, match="more than 10 bytes") as caught:
        fetcher(f"git+file://{repository.path}", limits=Limits(size=10))
    assert "--context-max-size" in caught.value.hint
    with pytest.raises(ContextError, match="more than 3 entries"):
        fetcher(f"git+file://{repository.path}", limits=Limits(entries=3))


def test_a_tree_of_trees_is_counted_before_it_is_written(tmp_path: Path, fetcher: Fetcher) -> None:
    """Ten objects, ten thousand million files."""
    work = tmp_path / "bomb"
    work.mkdir()
    git("init", "-q", "-b", "main", cwd=work)

    def made(command: str, data: str) -> str:
        arguments = ["git", *command.split()]
        return subprocess.run(
            arguments, input=data, cwd=work, check=True, capture_output=True, text=True
        ).stdout.strip()

    entry = f"100644 blob {made('hash-object -w --stdin', 'x')}"
    for _ in range(10):
        tree_id = made("mktree", "".join(f"{entry}\t{name}\n" for name in "abcdefghij"))
        entry = f"040000 tree {tree_id}"
    commit = git("commit-tree", tree_id, "-m", "bomb", cwd=work)
    git("update-ref", "refs/heads/main", commit, cwd=work)
    with pytest.raises(ContextError, match="more than 100000 entries"):
        fetcher(f"git+file://{work}", limits=Limits(entries=100_000))


def test_a_path_that_no_file_system_takes(tmp_path: Path, fetcher: Fetcher) -> None:
    work = tmp_path / "long"
    work.mkdir()
    git("init", "-q", "-b", "main", cwd=work)
    blob = git("hash-object", "-w", "/dev/null", cwd=work)
    entry = b"100644 " + b"x" * 1_000_000 + b"\0" + bytes.fromhex(blob)
    (tmp_path / "tree").write_bytes(entry)
    tree_id = git("hash-object", "-w", "-t", "tree", "--literally", str(tmp_path / "tree"), cwd=work)
    git("update-ref", "refs/heads/main", git("commit-tree", tree_id, "-m", "long", cwd=work), cwd=work)
    with pytest.raises(ContextError, match="a path that no file system takes"):
        fetcher(f"git+file://{work}")


@pytest.mark.parametrize("directory", ["plain", "with space", "quoted\tä"])
def test_names_of_files_do_not_hide_them_from_the_limits(directory: str, tmp_path: Path, fetcher: Fetcher) -> None:
    work = tmp_path / "named"
    (work / directory).mkdir(parents=True)
    git("init", "-q", "-b", "main", cwd=work)
    for name in ("a", "line\n100644 blob 00 1\tb", "c"):
        (work / directory / name).write_bytes(b"x" * 1000)
    git("add", ".", cwd=work)
    git("commit", "-q", "-m", "1", cwd=work)
    assert fetcher(f"git+file://{work}", limits=Limits(size=3000, entries=3)).revision
    with pytest.raises(ContextError, match="more than 2999 bytes"):
        fetcher(f"git+file://{work}", limits=Limits(size=2999))
    with pytest.raises(ContextError, match="more than 2 entries"):
        fetcher(f"git+file://{work}", limits=Limits(entries=2))


def test_no_program_outlives_a_fetch_that_is_ended(tmp_path: Path) -> None:
    """A signal reaches git, which has others do the transfer; they have the token in their environment."""
    if git_http.missing():
        pytest.skip(git_http.missing())
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "TMPDIR": str(tmp_path), "GIT_TOKEN": TOKEN}
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host = f"127.0.0.1:{silent.getsockname()[1]}"
        command = [sys.executable, "-m", "builder", "--context", f"https://{host}/app.git", "--no-push"]
        process = subprocess.Popen(
            [*command, "--oci-layout-path", str(tmp_path / "image")],
            env=environment,
            cwd=Path(__file__).parents[2],
            stderr=subprocess.PIPE,
        )
        connection, _ = silent.accept()
        with connection:
            assert any("remote-https" in line for line in command_lines(host))
            process.terminate()
            _, said = process.communicate()
            assert process.returncode == 143, said
            assert command_lines(host) == []
    assert not list(tmp_path.glob("limpet-*"))


def command_lines(word: str) -> list[str]:
    """Of the processes of this machine, those that have `word` among their arguments."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return [line for line in found if word in line]


def test_hooks_and_variables_of_the_surroundings_do_nothing(
    repository: Repository, tmp_path: Path, fetcher: Fetcher
) -> None:
    hooks = tmp_path / "home" / "hooks"
    hooks.mkdir(parents=True)
    (hooks / "post-checkout").write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    (hooks / "post-checkout").chmod(0o755)
    (tmp_path / "home" / ".gitconfig").write_text(f"[core]\n\thooksPath = {hooks}\n[init]\n\ttemplateDir = {hooks}\n")
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path / "home"),
        "GIT_DIR": "/nonexistent",
        "GIT_WORK_TREE": "/nonexistent",
        "GIT_TRACE": str(tmp_path / "trace"),
    }
    assert fetcher(f"git+file://{repository.path}", environment).revision == repository.main
    assert sorted(os.listdir(tmp_path)) == ["fetched", "home"]


def test_settings_of_the_home_directory_are_used(repository: Repository, tmp_path: Path, fetcher: Fetcher) -> None:
    (tmp_path / ".gitconfig").write_text(
        f'[url "file://{repository.path}"]\n\tinsteadOf = https://mirrored.example/app.git\n'
    )
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    assert fetcher("https://mirrored.example/app.git", environment).revision == repository.main


def test_signatures_that_the_user_wants_to_see_are_not_in_the_way(
    repository: Repository, tmp_path: Path, fetcher: Fetcher
) -> None:
    work = tmp_path / "signed"
    git("clone", "-q", str(repository.path), str(work), cwd=tmp_path)
    unsigned = git("cat-file", "commit", "HEAD", cwd=work)
    lines = "-----BEGIN SSH SIGNATURE-----", "AAAA", "-----END SSH SIGNATURE-----"
    (tmp_path / "commit").write_text(unsigned.replace("\n\n", "\ngpgsig " + "\n ".join(lines) + "\n\n", 1) + "\n")
    signed = git("hash-object", "-w", "-t", "commit", str(tmp_path / "commit"), cwd=work)
    git("update-ref", "refs/heads/signed", signed, cwd=work)
    (tmp_path / ".gitconfig").write_text("[log]\n\tshowSignature = true\n")
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    assert fetcher(f"git+file://{work}#signed", environment).revision == signed


def test_a_uid_without_an_account(
    server: GitServer, sshd: SshServer, repository: Repository, authority: Authority, tmp_path: Path
) -> None:
    """Pods run as any number; OpenShift's always do."""
    if os.geteuid() != 0:
        pytest.skip("needs uid 0 to become another")
    into = tmp_path / "into"
    into.mkdir()
    into.chmod(0o777)
    for directory in (tmp_path, *tmp_path.parents, authority.certificate.parent, *authority.certificate.parents):
        if str(directory) not in ("/", "/tmp") and directory.stat().st_uid == 0:
            directory.chmod(directory.stat().st_mode | 0o055)
    program = f"""
import os, sys, pathlib
import context_sources.git
from context_sources import fetch, FetchSettings
os.setgroups([]); os.setgid(4711); os.setuid(4711)
os.environ.clear()
env = {{"PATH": {os.environ["PATH"]!r}, "SSL_CERT_FILE": {str(authority.certificate)!r}, "GIT_TOKEN": {TOKEN!r}}}
print(fetch(sys.argv[1], pathlib.Path({str(into)!r}), FetchSettings(environment=env)).revision)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, f"{server.url}/app.git"], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == repository.main, done.stderr


def test_many_checkouts_at_once(repository: Repository, tmp_path: Path) -> None:
    """ADD fetches repositories from several stages at a time."""
    address = parse(f"git+file://{repository.path}#dev")
    commits: list[str] = []

    def run(index: int) -> None:
        into = tmp_path / str(index)
        into.mkdir()
        commits.append(
            checkout(address, into, FetchSettings(retry=QUICK, environment={"PATH": os.environ["PATH"]})).commit
        )

    threads = [threading.Thread(target=run, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert commits == [repository.dev] * 8
