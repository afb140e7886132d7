"""Which credential goes to which repository, and from where."""

from __future__ import annotations

import base64
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.errors import BuildError, RegistryError, UsageError
from builder.events import Message
from builder.registry.credentials import Credential, Credentials, login
from builder.registry.credentials.keys import Scope, helper_key
from tests.registry.client import Recorder


def auth(user: str, password: str = "secret") -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


class Home:
    """A home directory and an environment that points to it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.environ = {"HOME": str(path), "PATH": f"{path}/bin:{os.environ['PATH']}"}

    def config(self, value: Any, name: str = ".docker/config.json") -> Path:
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(value if isinstance(value, str) else json.dumps(value))
        return file

    def helper(self, name: str, body: str) -> Path:
        """docker-credential-`name`, a shell script; asked servers go to `name`.asked."""
        file = self.path / "bin" / f"docker-credential-{name}"
        file.parent.mkdir(exist_ok=True)
        file.write_text(f'#!/bin/sh\nread -r server; echo "$1 $server" >> {self.path}/{name}.asked\n{body}\n')
        file.chmod(0o755)
        return file

    def asked(self, name: str) -> list[str]:
        file = self.path / f"{name}.asked"
        return file.read_text().splitlines() if file.exists() else []

    def find(self, name: str, environ: Mapping[str, str] | None = None, **options: Any) -> Credential | None:
        registry, _, repository = name.partition("/")
        return Credentials({**self.environ, **(environ or {})}, **options).find(registry, repository).credential


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def user(found: Credential | None) -> str:
    return found.username if found else ""


# Keys


@pytest.mark.parametrize(
    ("key", "covered", "not_covered"),
    [
        ("r.example", ("r.example/a", "r.example/a/b"), ("r.example:5000/a", "s.r.example/a", "r.example.org/a")),
        ("r.example:5000", ("r.example:5000/a",), ("r.example/a",)),
        ("https://r.example", ("r.example/a",), ("other/a",)),
        ("http://r.example/v2/", ("r.example/a",), ("other/a",)),
        ("R.Example:443", ("r.example/a",), ()),
        ("r.example/a", ("r.example/a", "r.example/a/b"), ("r.example/ab", "r.example/b", "r.example/b/a")),
        ("r.example/a/b/", ("r.example/a/b", "r.example/a/b/c"), ("r.example/a", "r.example/a/c")),
        ("https://index.docker.io/v1/", ("index.docker.io/library/x",), ("r.example/x",)),
        ("docker.io", ("index.docker.io/me/x",), ()),
        ("registry-1.docker.io", ("index.docker.io/me/x",), ()),
        ("docker.io/me", ("index.docker.io/me/x",), ("index.docker.io/you/x",)),
    ],
)
def test_what_a_key_covers(key: str, covered: tuple[str, ...], not_covered: tuple[str, ...]) -> None:
    scope = Scope.parse(key)
    for expected, names in ((True, covered), (False, not_covered)):
        for name in names:
            registry, _, repository = name.partition("/")
            assert scope.covers(registry, repository) is expected, name


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=4), st.lists(st.sampled_from("abc"), max_size=4))
def test_a_path_covers_exactly_what_begins_with_its_components(repository: list[str], path: list[str]) -> None:
    scope = Scope("r.example", "/".join(path))
    assert scope.covers("r.example", "/".join(repository)) is (repository[: len(path)] == path)


def test_helpers_know_docker_hub_by_its_old_name() -> None:
    assert helper_key("index.docker.io") == "https://index.docker.io/v1/"
    assert helper_key("r.example:5000") == "r.example:5000"


# Files


def test_config_json(home: Home) -> None:
    home.config({"auths": {"r.example": auth("me", "pass:word")}, "HttpHeaders": {"X": "y"}, "currentContext": ""})
    found = home.find("r.example/app")
    assert found is not None
    assert (found.kind, found.username, found.secret) == ("password", "me", "pass:word")
    assert found.origin == f"{home.path}/.docker/config.json (entry r.example)"
    assert home.find("other.example/app") is None


@pytest.mark.parametrize(
    ("entry", "kind", "name", "secret"),
    [
        (auth("me"), "password", "me", "secret"),
        ({"username": "me", "password": "secret"}, "password", "me", "secret"),
        ({**auth("me"), "email": "me@example.com"}, "password", "me", "secret"),
        ({"auth": base64.b64encode(b"me:secret").decode().rstrip("=")}, "password", "me", "secret"),
        ({"identitytoken": "secret"}, "identity token", "", "secret"),
        (
            {**auth("00000000-0000-0000-0000-000000000000", ""), "identitytoken": "secret"},
            "identity token",
            None,
            "secret",
        ),
        (auth("<token>"), "identity token", "", "secret"),
        ({"registrytoken": "secret"}, "registry token", "", "secret"),
    ],
)
def test_entries(home: Home, entry: Any, kind: str, name: str | None, secret: str) -> None:
    home.config({"auths": {"r.example": entry}})
    found = home.find("r.example/app")
    assert found is not None
    assert (found.kind, found.secret) == (kind, secret)
    assert name is None or found.username == name
    assert "secret" not in repr(found)


@pytest.mark.parametrize("entry", [{}, None, {"auth": ""}, auth("", ""), auth("me", "")])
def test_empty_entries_are_none(home: Home, entry: Any) -> None:
    home.config({"auths": {"r.example": entry}})
    assert home.find("r.example/app") is None


def test_the_most_specific_entry(home: Home) -> None:
    paths = ["r.example", "r.example/a", "r.example/a/b", "r.example/c"]
    home.config({"auths": {path: auth(path.replace("/", "-")) for path in paths}})
    assert user(home.find("r.example/a/b/app")) == "r.example-a-b"
    assert user(home.find("r.example/a/b")) == "r.example-a-b"
    assert user(home.find("r.example/a/x")) == "r.example-a"
    assert user(home.find("r.example/x")) == "r.example"
    home.config({"auths": {"r.example/a": auth("a")}})
    assert home.find("r.example/b/app") is None


def test_the_order_of_files(home: Home) -> None:
    environ = {
        "DOCKER_CONFIG": f"{home.path}/cfg",
        "REGISTRY_AUTH_FILE": f"{home.path}/auth-file.json",
        "XDG_RUNTIME_DIR": f"{home.path}/run",
        "DOCKER_AUTH_CONFIG": json.dumps({"auths": {"1.example": auth("variable")}}),
    }
    everywhere = [f"{number}.example" for number in range(1, 7)]
    for number, (name, label) in enumerate(
        [
            ("cfg/config.json", "config"),
            ("auth-file.json", "file"),
            ("run/containers/auth.json", "run"),
            (".config/containers/auth.json", "home"),
        ],
        start=1,
    ):
        home.config({"auths": {key: auth(label) for key in everywhere[number:]}}, name)
    home.config({"auths": {key: auth("unused") for key in everywhere}})  # $DOCKER_CONFIG is elsewhere
    found = [user(home.find(f"{key}/app", environ)) for key in everywhere]
    assert found == ["variable", "config", "config", "config", "config", "config"]
    (home.path / "cfg/config.json").unlink()
    assert [user(home.find(f"{key}/app", environ)) for key in everywhere] == [
        "variable",
        "",
        "file",
        "file",
        "file",
        "file",
    ]
    (home.path / "auth-file.json").unlink()
    assert user(home.find("4.example/app", environ)) == "run"
    (home.path / "run/containers/auth.json").unlink()
    assert [user(home.find(f"{key}/app", environ)) for key in everywhere[3:]] == ["", "home", "home"]


def test_everything_is_read_at_the_start(home: Home) -> None:
    file = home.config({"auths": {"r.example": auth("me")}})
    environ = {**home.environ, "KANIKO_S_EXAMPLE_USER": "you", "KANIKO_S_EXAMPLE_PASSWORD": "secret"}
    credentials = Credentials(environ)
    file.unlink()
    environ.clear()
    assert user(credentials.find("r.example", "app").credential) == "me"
    assert user(credentials.find("s.example", "app").credential) == "you"


def test_files_that_cannot_be_used(home: Home) -> None:
    secret = base64.b64encode(b"me:top-secret").decode()
    for text in (
        "{",
        "[]",
        '{"auths": ["x"]}',
        json.dumps({"auths": {"r.example": secret}}),
        json.dumps({"auths": {"r.example": {"auth": f"ä{secret}!!"}}}),
        '{"auths": {"r.example": {"auth": "/w=="}}}',
        '{"credHelpers": 7}',
    ):
        home.config(text)
        with pytest.raises(
            UsageError, match=f"{home.path}/.docker/config.json is not a docker configuration"
        ) as caught:
            home.find("r.example/app")
        assert secret not in f"{caught.value.message} {caught.value.hint} {caught.value.__context__!r}"
        heard = Recorder()
        home.config("{}")
        assert home.find("r.example/app", {"DOCKER_AUTH_CONFIG": text}, listener=heard) is None
        assert heard.texts[0].startswith("DOCKER_AUTH_CONFIG is not a docker configuration")
    home.config("")
    assert home.find("r.example/app") is None
    (home.path / ".docker/config.json").unlink()
    (home.path / ".docker/config.json").mkdir()
    with pytest.raises(UsageError, match="Is a directory"):
        home.find("r.example/app")


# Helper programs

ANSWER = """echo '{"Username":"%s","Secret":"secret"}'"""
NOTHING = "echo 'credentials not found in native keychain'; exit 1"


def test_credential_helpers(home: Home) -> None:
    home.helper("one", ANSWER % "one")
    home.helper("all", ANSWER % "<token>")
    home.config({"credHelpers": {"r.example": "one"}, "credsStore": "all", "auths": {"s.example": {}}})
    found = home.find("r.example/app")
    assert found is not None
    assert (found.username, found.secret) == ("one", "secret")
    assert found.origin == f"docker-credential-one ({home.path}/.docker/config.json)"
    identity = home.find("s.example/app")
    assert identity is not None
    assert identity.kind == "identity token"
    home.find("index.docker.io/library/debian")
    assert home.asked("one") == ["get r.example"]
    assert home.asked("all") == ["get s.example", "get https://index.docker.io/v1/"]


def test_helpers_and_entries(home: Home) -> None:
    """By path first; at the same key the helper; the store is asked when nothing else has an answer."""
    home.helper("one", ANSWER % "helper")
    home.helper("none", NOTHING)
    home.helper("all", ANSWER % "store")
    home.config(
        {
            "auths": {"r.example": auth("entry"), "r.example/a": auth("path"), "s.example": auth("entry")},
            "credHelpers": {"r.example": "one", "t.example": "none", "s.example": "none"},
            "credsStore": "all",
        }
    )
    assert user(home.find("r.example/app")) == "helper"
    assert user(home.find("r.example/a/app")) == "path"
    assert user(home.find("s.example/app")) == "entry"
    assert user(home.find("t.example/app")) == "store"


def test_helpers_that_fail(home: Home) -> None:
    home.helper("one", "echo 'token expired' >&2; exit 3")
    home.config({"credHelpers": {"r.example": "one", "s.example": "missing", "t.example": "../x"}})
    with pytest.raises(RegistryError, match=r"docker-credential-one .* failed for r\.example: token expired"):
        home.find("r.example/app")
    with pytest.raises(UsageError, match="there is no docker-credential-missing in PATH"):
        home.find("s.example/app")
    with pytest.raises(UsageError, match="not the name of a credential helper"):
        home.find("t.example/app")
    home.helper("one", "echo secret-nonsense")
    with pytest.raises(RegistryError, match="printed something that is no credential") as caught:
        home.find("r.example/app")
    assert "secret-nonsense" not in caught.value.message
    assert home.find("u.example/app") is None


def test_helpers_get_the_environment_of_the_start(home: Home) -> None:
    home.helper("one", """echo "{\\"Username\\":\\"$WHO\\",\\"Secret\\":\\"secret\\"}" """)
    home.config({"credHelpers": {"r.example": "one"}})
    assert user(home.find("r.example/app", {"WHO": "me"})) == "me"


def test_a_helper_is_asked_once_unless_its_answer_is_refused(home: Home) -> None:
    home.helper("one", ANSWER % "me")
    home.config({"credHelpers": {"r.example": "one"}})
    credentials = Credentials(home.environ)
    for fresh in (False, False, True):
        credentials.find("r.example", "app", fresh=fresh)
    assert len(home.asked("one")) == 2


def test_a_credential_that_expires_is_asked_for_again(home: Home) -> None:
    home.helper("one", """echo '{"Username":"me","Secret":"secret","Expires":1}'""")
    home.config({"credHelpers": {"r.example": "one"}})
    credentials = Credentials(home.environ)
    credentials.find("r.example", "app")
    credentials.find("r.example", "app")
    assert len(home.asked("one")) == 2


# Variables


@pytest.mark.parametrize(
    ("registry", "variable"),
    [
        ("registry.example.com", "REGISTRY_EXAMPLE_COM"),
        ("registry.example.com", "EXAMPLE_COM"),
        ("my-registry.example.com", "MY_REGISTRY_EXAMPLE_COM"),
        ("registry.example.com", "COM"),
        ("index.docker.io", "INDEX_DOCKER_IO"),
        ("index.docker.io", "DOCKER_IO"),
        ("localhost:5000", "LOCALHOST:5000"),
        ("localhost:5000", "LOCALHOST_5000"),
        ("r.example.com:5000", "EXAMPLE_COM:5000"),
    ],
)
def test_kanikos_variables(home: Home, registry: str, variable: str) -> None:
    environ = {f"KANIKO_{variable}_USER": "me", f"KANIKO_{variable}_PASSWORD": "secret"}
    found = home.find(f"{registry}/app", environ)
    assert found is not None
    assert (found.username, found.secret) == ("me", "secret")
    assert found.origin == f"KANIKO_{variable}_USER and KANIKO_{variable}_PASSWORD"
    assert home.find("other.example.org/app", environ) is None
    assert home.find(f"{registry}/app", {f"KANIKO_{variable}_USER": "me"}) is None


def test_the_longest_variable_wins(home: Home) -> None:
    environ = {
        f"KANIKO_{name}_{part}": name for name in ("R_EXAMPLE_COM", "EXAMPLE_COM") for part in ("USER", "PASSWORD")
    }
    assert user(home.find("r.example.com/app", environ)) == "R_EXAMPLE_COM"
    assert user(home.find("s.example.com/app", environ)) == "EXAMPLE_COM"
    assert home.find("example.com:5000/app", environ) is None


def test_gitlab(home: Home) -> None:
    environ = {"CI_REGISTRY": "registry.gitlab.com", "CI_REGISTRY_USER": "gitlab-ci", "CI_REGISTRY_PASSWORD": "secret"}
    assert user(home.find("registry.gitlab.com/group/app", environ)) == "gitlab-ci"
    assert home.find("r.example/group/app", environ) is None
    assert home.find("registry.gitlab.com:5000/group/app", environ) is None
    assert user(home.find("r.example:5050/x", {**environ, "CI_REGISTRY": "https://r.example:5050"})) == "gitlab-ci"


# The chain


def test_the_order_of_sources(home: Home) -> None:
    environ = {
        "KANIKO_R_EXAMPLE_USER": "variable",
        "KANIKO_R_EXAMPLE_PASSWORD": "secret",
        "CI_REGISTRY": "r.example",
        "CI_REGISTRY_USER": "gitlab",
        "CI_REGISTRY_PASSWORD": "secret",
    }
    assert user(home.find("r.example/app", environ)) == "variable"
    assert user(home.find("r.example/app", environ, helpers=("gitlab", "ecr"))) == "gitlab"
    assert home.find("r.example/app", environ, helpers=()) is None
    assert home.find("r.example/app", environ, helpers=("",)) is None
    home.config({"auths": {"r.example": auth("file")}})
    assert user(home.find("r.example/app", environ)) == "file"
    assert user(home.find("r.example/app", environ, helpers=())) == "file"


def test_unknown_helpers_are_warned_of(home: Home) -> None:
    heard = Recorder()
    Credentials(home.environ, helpers=("env", "azure"), listener=heard)
    assert [event for event in heard.events if isinstance(event, Message) and event.level == "warning"]
    assert "'azure' is unknown; there are env, google, ecr, acr, gitlab" in heard.texts[0]


def test_it_explains_itself(home: Home) -> None:
    home.config({"auths": {"r.example": auth("me", "top-secret")}})
    heard = Recorder()
    credentials = Credentials(home.environ, listener=heard)
    file = f"{home.path}/.docker/config.json"
    assert credentials.explain("r.example", "app") == (
        f"r.example/app: password from {file} (entry r.example); looked in {file}"
    )
    assert credentials.explain("s.example", "app") == (
        f"s.example/app: none; looked in {file} and the environment (env, google, ecr, acr, gitlab)"
    )
    assert heard.texts == [f"credential for {credentials.explain(name, 'app')}" for name in ("r.example", "s.example")]
    assert all(isinstance(event, Message) and event.level == "debug" for event in heard.events)
    assert "top-secret" not in repr(credentials.find("r.example", "app")) + "".join(heard.texts)


# login


def test_login_writes_what_is_read(home: Home) -> None:
    home.config({"auths": {"s.example": auth("you")}, "HttpHeaders": {"X": "y"}})
    assert login("r.example:5000", "me", "pass:word", home.environ) == f"{home.path}/.docker/config.json"
    login("docker.io", "hub", "secret", home.environ)
    login("t.example", "<token>", "identity", home.environ)
    found = home.find("r.example:5000/app")
    assert found is not None
    assert (found.username, found.secret) == ("me", "pass:word")
    assert user(home.find("index.docker.io/library/x")) == "hub"
    assert user(home.find("s.example/x")) == "you"
    identity = home.find("t.example/x")
    assert identity is not None
    assert identity.kind == "identity token"
    value = json.loads((home.path / ".docker/config.json").read_text())
    assert value["HttpHeaders"] == {"X": "y"}
    assert set(value["auths"]) == {"s.example", "r.example:5000", "https://index.docker.io/v1/", "t.example"}
    assert stat.S_IMODE((home.path / ".docker/config.json").stat().st_mode) == 0o600
    assert [path.name for path in (home.path / ".docker").iterdir()] == ["config.json"]


def test_login_where_there_is_nothing_yet(home: Home) -> None:
    environ = {**home.environ, "DOCKER_CONFIG": f"{home.path}/new/dir"}
    assert login("r.example", "me", "secret", environ) == f"{home.path}/new/dir/config.json"
    assert user(home.find("r.example/app", environ)) == "me"


def test_login_with_a_helper(home: Home) -> None:
    home.helper("one", f"cat >> {home.path}/stored")
    script = home.path / "bin/docker-credential-one"
    script.write_text(f"#!/bin/sh\necho $1 > {home.path}/action; cat > {home.path}/stored\n")
    home.config({"credHelpers": {"r.example": "one"}})
    assert login("r.example", "me", "secret", home.environ) == "docker-credential-one"
    assert (home.path / "action").read_text() == "store\n"
    assert json.loads((home.path / "stored").read_text()) == {
        "ServerURL": "r.example",
        "Username": "me",
        "Secret": "secret",
    }
    script.write_text('#!/bin/sh\nread -r line; echo "cannot keep $line"; exit 1\n')
    with pytest.raises(RegistryError, match="could not store") as caught:
        login("r.example", "me", "secret-word", home.environ)
    assert "secret-word" not in caught.value.message


def test_login_where_nothing_can_be_written(home: Home) -> None:
    (home.path / "file").write_text("")
    with pytest.raises(BuildError, match="Not a directory"):
        login("r.example", "me", "secret", {**home.environ, "DOCKER_CONFIG": f"{home.path}/file/x"})
