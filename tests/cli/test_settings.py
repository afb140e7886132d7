"""Flags and environment to settings; what contradicts itself is refused."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from builder.cli.arguments import parse
from builder.cli.settings import Settings, build_args, log_settings, settings_of
from builder.errors import UsageError
from builder.oci.platform import Platform
from builder.oci.reference import DOCKER_HUB


def settings(*argv: str, command: str = "build", **env: str) -> Settings:
    return settings_of(parse(command, argv, env), env)


def refused(*argv: str, **env: str) -> str:
    with pytest.raises(UsageError) as raised:
        settings(*argv, **env)
    assert raised.value.hint
    return f"{raised.value.message}\n{raised.value.hint}"


def test_the_smallest_build() -> None:
    found = settings("--destination=r.example/app")
    assert found.output.destinations == ("r.example/app",)
    assert found.output.push
    assert found.source.context == "/workspace/"
    assert found.build.isolation == "auto"
    assert found.registry.helpers is None


@pytest.mark.parametrize(
    ("argv", "facts"),
    [
        ([], ["--destination", "--no-push"]),
        (["--no-push", "--image-name-with-digest-file=f"], ["--image-name-with-digest-file", "--digest-file"]),
        (["--no-push", "--image-name-tag-with-digest-file=f"], ["--image-name-tag-with-digest-file"]),
        (["--no-push", "--image-format=docker", "--compression=zstd"], ["--image-format=oci"]),
        (["--no-push", "--tar-path=t", "--image-format=oci"], ["--tar-path", "--oci-layout-path"]),
        (["--no-push", "--tar-path=t", "--compression=zstd"], ["--tar-path", "--oci-layout-path"]),
        (["--no-push", "--compression-level=10"], ["10 is not a level of gzip"]),
        (["--no-push", "--custom-platform=linux/arm64", "--platform=linux/amd64"], ["--custom-platform"]),
        (["--no-push", "--custom-platform=a/b/c/d"], ["is not a platform"]),
        (["--no-push", "--label=a"], ["--label: expected key=value, got a"]),
        (["--no-push", "--tags=v1"], ["--tags needs a --destination"]),
        (["-d", "r/x@sha256:" + "0" * 64], ["a digest cannot be chosen"]),
        (["--no-push", "--build-context=lib"], ["--build-context", "NAME=ADDRESS"]),
        (["--no-push", "--allow=everything"], ["unknown entitlement everything"]),
        (["--no-push", "--registry-client-cert=h=/only-one"], ["a certificate and a key"]),
        (["--no-push", "--registry-certificate=h=/not/there.pem"], ["/not/there.pem: No such file"]),
        (["--no-push", "--push-retry=-1"], ["--push-retry"]),
        (["--no-push", "--build-arg==x"], ["--build-arg: no name"]),
    ],
)
def test_contradictions_name_the_way_out(argv: list[str], facts: list[str]) -> None:
    text = refused(*argv)
    assert [fact for fact in facts if fact not in text] == []


def test_a_plan_needs_no_destination() -> None:
    assert settings(command="plan").output.destinations == ()
    assert settings("--dryrun").build.dry_run


def test_tags_are_for_the_first_repository() -> None:
    found = settings("-d=r.example:5000/app:1", "-d=other/x", "--tags", "1.2", "latest", "1")
    assert found.output.destinations == (
        "r.example:5000/app:1",
        "other/x",
        "r.example:5000/app:1.2",
        "r.example:5000/app:latest",
    )
    assert settings("-d=r.example:5000/app", "--tags", "v1").output.destinations[1] == "r.example:5000/app:v1"


def test_build_args_from_the_environment() -> None:
    env = {"HERE": "x", "SOURCE_DATE_EPOCH": "17"}
    assert build_args(("HERE", "NOT_HERE", "A=b=c", "A=d"), env) == {"HERE": "x", "A": "d", "SOURCE_DATE_EPOCH": "17"}
    assert build_args(("SOURCE_DATE_EPOCH=3",), env) == {"SOURCE_DATE_EPOCH": "3"}


def test_mirrors_follow_maps() -> None:
    found = settings("--no-push", "--registry-mirror=m.example", "--registry-map=docker.io=a.example;quay.io=q.example")
    assert _mirrors(found) == {DOCKER_HUB: ["a.example", "m.example"], "quay.io": ["q.example"]}
    alone = settings("--no-push", KANIKO_REGISTRY_MIRROR="m.example")
    assert _mirrors(alone) == {DOCKER_HUB: ["m.example"]}


def _mirrors(found: Settings) -> dict[str, list[str]]:
    table = found.registry.settings.mirrors.by_registry
    return {name: [mirror.registry for mirror in mirrors] for name, mirrors in table.items()}


def test_credential_helpers() -> None:
    assert settings("--no-push", "--credential-helpers=").registry.helpers == ()
    assert settings("--no-push", "--credential-helpers=ecr,env").registry.helpers == ("ecr", "env")


def test_platforms() -> None:
    assert settings("--no-push", "--customPlatform=linux/arm64/v8").build.platforms == (Platform("linux", "arm64"),)
    both = settings("--no-push", "--custom-platform=linux/arm64", "--platform=linux/arm64/v8")
    assert both.build.platforms == (Platform("linux", "arm64"),)
    assert settings("--no-push").build.platforms == ()


def test_the_git_keys_that_were_given() -> None:
    assert settings("--no-push", "--git=depth=1", "--git", "branch=a=b").source.git == {"depth": "1", "branch": "a=b"}
    assert settings("--no-push").source.git == {}


def test_log() -> None:
    def log(*argv: str, terminal: bool = False):
        return log_settings(parse("build", argv, {}), terminal=terminal)

    assert log().format == "plain"
    assert log(terminal=True).format == "live"
    assert log("--log-format=color").format == "color"
    assert log("--verbosity=warn").level == "warning"
    assert log("-v", "PANIC").level == "fatal"
    assert log("--log-timestamp").clock


class TestSecrets:
    def test_every_way_to_say_where_one_is(self, tmp_path: Path) -> None:
        path = tmp_path / "token"
        path.write_bytes(b"from a file\n\xff")
        env = {"TOKEN": "from env", "named": "by id"}
        found = settings(
            "--no-push",
            f"--secret=id=a,src={path}",
            f"--secret=id=b,source={path},type=file",
            "--secret=id=c,env=TOKEN",
            "--secret=type=env,id=d,src=TOKEN",
            "--secret=id=named",
            "--secret=id=TOKEN,type=env",
            f'--secret="id=e",src={path}',
            **env,
        )
        content = path.read_bytes()
        assert found.build.secrets == {
            "a": content,
            "b": content,
            "c": b"from env",
            "d": b"from env",
            "named": b"by id",
            "TOKEN": b"from env",
            "e": content,
        }
        assert "from" not in repr(found)

    def test_a_file_that_is_called_like_the_id(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        Path("npmrc").write_text("x")
        assert settings("--no-push", "--secret=id=npmrc").build.secrets == {"npmrc": b"x"}

    @pytest.mark.parametrize(
        ("spec", "fact"),
        [
            ("src=a", "no id"),
            ("id=a,src=b,env=c", "exclude each other"),
            ("id=a,type=file,env=c", "exclude each other"),
            ("id=a,type=dir", "unknown type dir"),
            ("id=a,mode=1", "unknown field mode"),
            ("id=a,id=b", "given twice"),
            ("id=a,src", "without `=`"),
            ("id=a,src=/not/there", "/not/there: No such file"),
            ("id=a,env=NOT_SET", "NOT_SET is not set"),
        ],
    )
    def test_what_is_refused(self, spec: str, fact: str) -> None:
        assert fact in refused("--no-push", f"--secret={spec}")

    def test_an_id_once(self) -> None:
        assert "given twice" in refused("--no-push", "--secret=id=A,env=A", "--secret=id=A,env=A", A="x")

    def test_a_value_pasted_in_place_of_a_spec_is_not_repeated(self) -> None:
        assert "hunter2secret" not in refused("--no-push", "--secret=hunter2secret")

    def test_too_large(self, tmp_path: Path) -> None:
        path = tmp_path / "big"
        path.write_bytes(b"x" * (500 * 1024 + 1))
        assert "500 KiB" in refused("--no-push", f"--secret=id=a,src={path}")


class TestSsh:
    def test_sockets(self, tmp_path: Path) -> None:
        path = tmp_path / "agent"
        with socket.socket(socket.AF_UNIX) as agent:
            agent.bind(str(path))
            found = settings("--no-push", "--ssh=default", f"--ssh=other={path}", SSH_AUTH_SOCK=str(path))
        assert found.build.ssh == {"default": path, "other": path}

    def test_what_is_refused(self, tmp_path: Path) -> None:
        key = tmp_path / "id_ed25519"
        key.write_text("x")
        assert "is no agent socket" in refused("--no-push", f"--ssh=default={key}")
        assert "SSH_AUTH_SOCK is not set" in refused("--no-push", "--ssh=default")
        assert "No such file" in refused("--no-push", f"--ssh=default={tmp_path / 'none'}")


def test_a_bucket_is_a_context() -> None:
    assert settings("--no-push", "--bucket=b").source.context == "gs://b"
    assert settings("--no-push", "-b", "s3://b/x.tar.gz", "--context=").source.context == "s3://b/x.tar.gz"
    assert "--bucket" in refused("--no-push", "--bucket=b", "--context=dir:///x")
