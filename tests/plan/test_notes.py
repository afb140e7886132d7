"""Build arguments without effect, and those with a special one."""

from __future__ import annotations

import pytest

from tests.plan.planning import base_image, plan_of


def test_an_undeclared_build_argument_is_named() -> None:
    (note,) = plan_of("ARG A\nFROM a\nARG B", build_args={"A": "1", "B": "1", "D": "1", "C": "1"}).notes
    assert "C, D" in note


def test_what_has_an_effect_is_not() -> None:
    arguments = {
        "http_proxy": "p",
        "TARGETARCH": "x",
        "SOURCE_DATE_EPOCH": "0",
        "BUILDKIT_SANDBOX_HOSTNAME": "h",
        "BUILDKIT_CACHE_MOUNT_NS": "n",
        "BUILDKIT_DOCKERFILE_CHECK": "skip=all",
        "BUILDKIT_SYNTAX": "docker/dockerfile:1.26",
        "T": "1",
    }
    images = {"docker.io/library/a:latest": base_image(on_build=("ARG T",))}
    planned = plan_of("# syntax=docker/dockerfile:1\nFROM a", images, build_args=arguments)
    assert planned.notes == ()
    assert planned.hostname == "h"


@pytest.mark.parametrize(
    "argument",
    [
        "BUILDKIT_INLINE_CACHE",
        "BUILDKIT_MULTI_PLATFORM",
        "BUILDKIT_CONTEXT_KEEP_GIT_DIR",
        "BUILDKIT_BUILD_NAME",
        "BUILDKIT_SBOM_SCAN_CONTEXT",
        "BUILDKIT_SBOM_SCAN_STAGE",
        "BUILDKIT_UNHEARD_OF",
    ],
)
def test_what_has_none_is_said(argument: str) -> None:
    (note,) = plan_of("FROM a", build_args={argument: "1"}).notes
    assert argument in note


def test_another_frontend_is_said() -> None:
    assert "example.com/frontend" in plan_of("# syntax=example.com/frontend:1\nFROM a").notes[0]
    assert "x/y" in plan_of("FROM a", build_args={"BUILDKIT_SYNTAX": "x/y"}).notes[0]
