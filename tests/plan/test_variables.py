"""ARG, ENV and what FROM sees of them."""

from __future__ import annotations

import pytest

from builder.errors import DockerfileError
from builder.oci.platform import Platform
from builder.plan import BaseImage, ImageBase
from builder.steps.step import RunStep
from tests.plan.planning import ARM64, PATH, base_image, created_by, last_step, plan_of, target_of


def run_step(text: str, images: dict[str, BaseImage] | None = None, **options: object) -> RunStep:
    step = last_step(text, images, **options)
    assert isinstance(step, RunStep)
    return step


@pytest.mark.parametrize(
    ("lines", "build_args", "value"),
    [
        ("ARG X=default", {}, "default"),
        ("ARG X=default", {"X": "given"}, "given"),
        ("ARG X=default", {"X": ""}, ""),
        ("ARG X", {}, None),
        ("ARG X", {"X": "given"}, "given"),
        ("ENV X=1\nARG X=2", {}, "2"),
        ("ARG X=2\nENV X=1", {}, "1"),
        ("ARG X\nENV X=${X:-fallback}", {}, "fallback"),
        ("ARG Y=1 X=$Y$Y", {}, "11"),
        ("ARG X=1\nARG X=2", {}, "2"),
        ("ENV X='$HOME' Y=1", {}, "$HOME"),
    ],
)
def test_run_sees_the_last_writer(lines: str, build_args: dict[str, str], value: str | None) -> None:
    step = run_step(f"FROM a\n{lines}\nRUN x", build_args=build_args)
    assert step.env.get("X") == value


def test_an_arg_is_no_part_of_the_image() -> None:
    stage = target_of("FROM a\nARG X=1\nENV Y=$X\nRUN x")
    assert stage.final.env == (PATH, "Y=1")
    assert created_by(stage) == ["ARG X=1", "ENV Y=1", "RUN |1 X=1 /bin/sh -c x # buildkit"]


def test_env_sees_the_environment_before_it() -> None:
    stage = target_of("FROM a\nENV abc=hello\nENV abc=bye def=$abc\nENV ghi=$abc")
    assert stage.final.env == (PATH, "abc=bye", "def=hello", "ghi=bye")


def test_only_child_stages_inherit_args() -> None:
    text = "FROM a AS parent\nARG X=1\nFROM {base}\nRUN x"
    assert run_step(text.format(base="parent")).env["X"] == "1"
    assert "X" not in run_step(text.format(base="a")).env


def test_a_global_arg_reaches_a_stage_that_declares_it() -> None:
    text = "ARG V=1\nARG W=${{V}}x\nFROM a:$W\n{declare}\nRUN x"
    declared = run_step(text.format(declare="ARG W"), build_args={"V": "5"})
    assert declared.env["W"] == "5x"
    assert "W" not in run_step(text.format(declare="ENV Z=1")).env
    base = target_of(text.format(declare="ARG W")).base
    assert isinstance(base, ImageBase)
    assert base.reference == "docker.io/library/a:1x"


def test_a_default_in_the_stage_beats_the_global_value() -> None:
    assert run_step("ARG V=3\nFROM a\nARG V=4\nRUN x").env["V"] == "4"


def test_automatic_arguments() -> None:
    text = "FROM --platform=$BUILDPLATFORM a AS Main\nARG TARGETPLATFORM TARGETVARIANT BUILDARCH TARGETSTAGE\nRUN x"
    step = run_step(text, target_platform=Platform("linux", "arm", "v7"))
    assert {name: step.env[name] for name in ("TARGETPLATFORM", "TARGETVARIANT", "BUILDARCH", "TARGETSTAGE")} == {
        "TARGETPLATFORM": "linux/arm/v7",
        "TARGETVARIANT": "v7",
        "BUILDARCH": "amd64",
        "TARGETSTAGE": "main",
    }
    overridden = run_step("FROM a\nARG TARGETARCH\nRUN x", build_args={"TARGETARCH": "mine"}, target_platform=ARM64)
    assert overridden.env["TARGETARCH"] == "mine"


def test_an_unnamed_target_stage_is_called_default() -> None:
    assert run_step("FROM a AS b\nFROM a\nARG TARGETSTAGE\nRUN x").env["TARGETSTAGE"] == "default"


def test_proxies_reach_run_and_nothing_else() -> None:
    step = run_step("FROM a\nRUN x", build_args={"http_proxy": "http://p:1", "NO_PROXY": "h"})
    assert step.env["HTTP_PROXY"] == step.env["http_proxy"] == "http://p:1"
    assert step.env["NO_PROXY"] == step.env["no_proxy"] == "h"
    assert not {name.upper() for name in step.key_env} & {"HTTP_PROXY", "NO_PROXY"}
    assert step.history is not None and "p:1" not in step.history.created_by


def test_a_declared_proxy_is_part_of_history_and_key() -> None:
    step = run_step("FROM a\nARG HTTP_PROXY\nRUN x", build_args={"HTTP_PROXY": "http://p:1"})
    assert step.key_env["HTTP_PROXY"] == "http://p:1"
    assert step.history is not None and "HTTP_PROXY=http://p:1" in step.history.created_by


def test_sbom_arguments_stay_out_of_the_environment() -> None:
    step = run_step("FROM a\nARG BUILDKIT_SBOM_SCAN_STAGE=true\nRUN x")
    assert "BUILDKIT_SBOM_SCAN_STAGE" not in step.env
    assert step.history is not None and "|1 BUILDKIT_SBOM_SCAN_STAGE=true" in step.history.created_by


def test_the_environment_of_the_base_is_seen() -> None:
    images = {"docker.io/library/a:latest": base_image(env=("PATH=/p", "FOO=base"))}
    stage = target_of("FROM a\nENV BAR=$FOO FOO=mine", images)
    assert stage.final.env == ("PATH=/p", "FOO=mine", "BAR=base")


@pytest.mark.parametrize(
    "text",
    [
        "FROM a\nENV X=${Y?need y}",
        "FROM a\nRUN --mount=type=bind,target=${ x",
        'FROM a\nCOPY "a b" /c',
        "FROM a:${V",
        "ARG X=${Y:}\nFROM a",
        "FROM a\nUSER ${}",
    ],
)
def test_a_bad_substitution_names_the_line(text: str) -> None:
    with pytest.raises(DockerfileError) as caught:
        plan_of(text)
    assert caught.value.location is not None
    assert caught.value.location.start in (1, 2)
