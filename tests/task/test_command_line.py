"""What pipeline definitions ask of the command line: lists that nothing escapes from, results, bases, secrets."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder.cli.arguments import parse
from builder.cli.settings import settings_of
from builder.errors import UsageError
from builder.outputs import RESULTS, tekton_results, too_large_for_tekton, write_results
from builder.registry.credentials.chain import Credentials

DIGEST = "sha256:" + "0" * 64


def settings(*argv: str, env: dict[str, str] | None = None):  # type: ignore[no-untyped-def]
    return settings_of(parse("build", ["--destination=r.example/a", *argv], env or {}), env or {})


def test_lists_after_only_lists_take_any_value_that_is_no_flag() -> None:
    arguments = parse(
        "build", ["--only-lists", "--tags", "1", "2", "--labels", "--build-args", "A=--x", "B=$(id) ;"], {}
    )
    assert arguments.items("tags") == ("1", "2")
    assert arguments.items("label") == ()
    assert arguments.items("build-arg") == ("A=--x", "B=$(id) ;")


@pytest.mark.parametrize(
    "argv",
    [
        ("--tags", "--destination=evil/x"),
        ("--tags", "-devil/x"),
        ("--tags", "--no-push"),
        ("--tags", "--"),
        ("--tags", "--labels", "a=b", "--labels"),
        ("--tags", "--args-json=[]"),
        ("--tags=[]",),
        ("value",),
    ],
)
def test_no_value_acts_as_a_flag_after_only_lists(argv: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="after --only-lists"):
        parse("build", ["--only-lists", *argv], {})


def test_every_result_can_have_a_file_of_its_own(tmp_path: Path) -> None:
    asked = settings(
        "--push=false", "--results", *(f"{name}={tmp_path}/{number}" for number, name in enumerate(RESULTS))
    )
    assert not asked.output.push
    context = {"source": "https://git.example/a.git", "revision": "0" * 40, "revision_kind": "commit"}
    returned = write_results(asked.output.files, ["r.example/a:1"], DIGEST, (), {"context": context})
    written = {RESULTS[int(path.name)]: path.read_text() for path in tmp_path.iterdir()}
    assert written == returned == tekton_results(["r.example/a:1"], DIGEST, (), context)
    assert set(written) == set(RESULTS) - {"base-ARTIFACT_INPUTS"}
    assert not any("\n" in text for text in written.values())


def test_results_that_tekton_cannot_carry_are_told() -> None:
    def names(count: int) -> list[str]:
        return [f"registry.example.com/a-rather-long-name/of-an-image-{number}:tag" for number in range(count)]

    assert too_large_for_tekton(tekton_results(names(5) * 100, DIGEST, ())) == ""
    assert "4096" in too_large_for_tekton(tekton_results(names(50), DIGEST, ()))


def test_an_unknown_result_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown result IMAGE"):
        settings("--result", "IMAGE=/x")


@pytest.mark.parametrize(
    ("context", "found"),
    [
        ("./", "/workspace/source/./"),
        ("/app", "/workspace/source//app"),
        ("s3://bucket/context.tar.gz", "s3://bucket/context.tar.gz"),
        ("git@example.com:team/app.git", "git@example.com:team/app.git"),
    ],
)
def test_paths_are_below_the_base_and_addresses_are_not(context: str, found: str) -> None:
    assert settings(f"--context={context}", "--context-base=/workspace/source").source.context == found
    assert settings(f"--context={context}", "--context-base=").source.context == context


def test_a_mounted_secret_is_a_directory_of_secrets(tmp_path: Path) -> None:
    (tmp_path / "..data").mkdir()
    (tmp_path / "..data/token").write_bytes(b"t\n")
    (tmp_path / "token").symlink_to("..data/token")
    assert settings(f"--secrets-dir={tmp_path}").build.secrets == {"token": b"t\n"}
    assert settings("--secrets-dir=").build.secrets == {}
    with pytest.raises(UsageError, match="--secrets-dir"):
        settings(f"--secrets-dir={tmp_path}/none")


def test_an_empty_epoch_is_none() -> None:
    assert "SOURCE_DATE_EPOCH" not in settings(env={"SOURCE_DATE_EPOCH": ""}).build.build_args


@pytest.mark.parametrize("place", ["config/config.json", "config/.dockerconfigjson"])
def test_credentials_are_found_where_pods_have_them(tmp_path: Path, place: str) -> None:
    path = tmp_path / place
    path.parent.mkdir(parents=True)
    path.write_text('{"auths": {"r.example": {"username": "u", "password": "p"}}}')
    env = {"DOCKER_CONFIG": str(tmp_path / "config")}
    found = Credentials(env, helpers=()).find("r.example", "a").credential
    assert found is not None and found.username == "u"
