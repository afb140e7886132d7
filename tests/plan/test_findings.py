"""Lint rules that need values, and what silences them."""

from __future__ import annotations

import pytest

from builder.errors import DockerfileError, UsageError
from tests.plan.planning import base_image, plan_of, rules


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("FROM a\nENV X=$Y", [("UndefinedVar", 2)]),
        ("FROM a\nARG Y\nENV X=$Y", []),
        ("FROM a\nENV Y=1\nCOPY $Y ${Z:-z} /", [("UndefinedVar", 3)]),
        ("FROM a\nCOPY <<E /\n$Y\nE", [("UndefinedVar", 2)]),
        ("FROM a\nRUN echo $Y", []),
        ("FROM a\nEXPOSE $Y", []),
        ("ARG V\nFROM a:1$V", []),
        ("FROM a:1$V", [("UndefinedArgInFrom", 1)]),
        ("FROM --platform=$TARGETPLATFORM a", [("RedundantTargetPlatform", 1)]),
        ("FROM --platform=$TARGETOS/$TARGETARCH a", []),
        ("FROM --platform=linux/amd64 a", [("FromPlatformFlagConstDisallowed", 1)]),
        ("FROM --platform=linux/amd64 a AS build-amd64", []),
        ("FROM a\nEXPOSE 80/TCP 1.2.3.4:80:81", [("ExposeInvalidFormat", 2), ("ExposeProtoCasing", 2)]),
        ("FROM a\nENV D=sub\nWORKDIR $D", [("WorkdirRelativePath", 3)]),
        ("FROM a\nENV D=/abs\nWORKDIR $D\nWORKDIR rel", []),
        ("FROM a\nWORKDIR rel", [("WorkdirRelativePath", 2)]),
        ("FROM a\nWORKDIR 'r$x'", [("WorkdirRelativePath", 2)]),
        ("FROM a AS unused\nCMD x\nENV X=$Y\nFROM a", []),
    ],
)
def test_rules(text: str, expected: list[tuple[str, int]]) -> None:
    assert rules(plan_of(text)) == expected


def test_a_default_that_makes_no_image_name_is_found_although_a_value_was_given() -> None:
    planned = plan_of("ARG BASE\nFROM $BASE", build_args={"BASE": "a"})
    assert rules(planned) == [("InvalidDefaultArgInFrom", 2)]


def test_the_nearest_variable_is_suggested() -> None:
    (warning,) = plan_of("FROM a\nENV VERSION=1\nENV X=$VERSOIN").warnings
    assert warning.message == "Usage of undefined variable '$VERSOIN' (did you mean $VERSION?)"


def test_a_shell_of_the_base_image_makes_shell_form_deliberate() -> None:
    images = {"docker.io/library/a:latest": base_image(shell=("/bin/bash", "-c"))}
    assert rules(plan_of("FROM a\nCMD x", images)) == []
    assert rules(plan_of("FROM a\nCMD x")) == [("JSONArgsRecommended", 2)]


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (("*.log", "secret"), [("CopyIgnoredFile", 2), ("CopyIgnoredFile", 3)]),
        (("*", "!keep"), []),
        ((), []),
    ],
)
def test_ignored_sources(patterns: tuple[str, ...], expected: list[tuple[str, int]]) -> None:
    text = "FROM a AS s\nCOPY ./x.log y /\nADD secret/inner https://h/secret /\nCOPY --from=b x.log /\n"
    assert rules(plan_of(text, ignore_patterns=patterns)) == expected


def test_directives_silence() -> None:
    assert rules(plan_of("# check=skip=UndefinedVar\nFROM a\nENV X=$Y")) == []
    assert rules(plan_of("FROM a\n# check=skip=all\nENV X=$Y\nENV Z=$Y")) == [("UndefinedVar", 4)]


def test_findings_as_errors() -> None:
    with pytest.raises(DockerfileError, match="UndefinedVar") as caught:
        plan_of("# check=error=true\nFROM a\nENV X=$Y")
    assert caught.value.location is not None and caught.value.location.start == 3
    assert plan_of("# check=skip=UndefinedVar;error=true\nFROM a\nENV X=$Y").warnings == ()


def test_the_build_argument_for_checks() -> None:
    text = "FROM a\nENV X=$Y"
    assert plan_of(text, build_args={"BUILDKIT_DOCKERFILE_CHECK": "skip=all"}).warnings == ()
    with pytest.raises(DockerfileError, match="UndefinedVar"):
        plan_of(text, build_args={"BUILDKIT_DOCKERFILE_CHECK": "error=true"})
    with pytest.raises(UsageError, match="BUILDKIT_DOCKERFILE_CHECK"):
        plan_of(text, build_args={"BUILDKIT_DOCKERFILE_CHECK": "bogus"})
