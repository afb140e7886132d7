"""What FROM means, what targets reach, and in which order stages can be built."""

from __future__ import annotations

import pytest

from builder.dockerfile import parse
from builder.errors import DockerfileError, UsageError
from builder.oci.config import Healthcheck
from builder.oci.platform import Platform
from builder.plan import (
    SCRATCH,
    ExternalImage,
    ImageBase,
    PlanOptions,
    ScratchBase,
    StageBase,
    external_images,
)
from builder.steps.step import CopyStep, FromImage, FromNamedContext, FromStage, RunStep
from tests.plan.planning import AMD64, ARM64, PATH, base_image, created_by, plan_of, rules, target_of

A, B = "docker.io/library/a:latest", "docker.io/library/b:latest"


def test_only_what_the_target_reaches_is_planned_or_fetched() -> None:
    asked: list[tuple[str, Platform]] = []
    text = "FROM a AS one\nRUN 1\nFROM b AS two\nRUN 2\nFROM c AS three\nFROM one\nCOPY --from=two /x /y\n"
    planned = plan_of(text, asked=asked)
    assert [stage.index for stage in planned.stages] == [0, 1, 3]
    assert planned.stage(3).dependencies == (0, 1)
    assert planned.stage(3).base == StageBase(0)
    assert [skipped.display for skipped in planned.skipped] == ["three"]
    assert sorted(asked) == [(A, AMD64), (B, AMD64)]


def test_the_target_is_chosen_by_name_in_any_case() -> None:
    planned = plan_of("FROM a AS Tools\nRUN 1\nFROM b", targets=("TOOLS",))
    assert planned.targets == (0,)
    assert [skipped.display for skipped in planned.skipped] == ["1"]


def test_several_targets_share_stages() -> None:
    planned = plan_of("FROM a AS x\nFROM x AS y\nFROM x AS z\nFROM b", targets=("z", "y"), labels={"l": "1"})
    assert planned.targets == (2, 1)
    assert [stage.index for stage in planned.stages] == [0, 1, 2]
    assert planned.stage(0).final.labels == {}
    assert planned.stage(1).final.labels == {"l": "1"}


def test_a_target_that_is_not_there() -> None:
    with pytest.raises(UsageError) as caught:
        plan_of("FROM a AS build", targets=("biuld",))
    assert "build" in caught.value.hint


def test_a_later_stage_of_the_same_name_wins() -> None:
    planned = plan_of("FROM a AS x\nFROM b AS X\nFROM x")
    assert planned.stage(2).base == StageBase(1)


def test_a_number_is_a_stage_for_copy_but_an_image_for_from_and_mount() -> None:
    planned = plan_of("FROM a\nFROM 0\nCOPY --from=0 /x /y\nRUN --mount=from=0,target=/m x")
    stage = planned.stage(1)
    assert isinstance(stage.base, ImageBase) and stage.base.reference == "docker.io/library/0:latest"
    copy, run = stage.steps
    assert isinstance(copy, CopyStep) and copy.origin == FromStage(0)
    assert isinstance(run, RunStep) and stage.images == (ExternalImage("docker.io/library/0:latest", AMD64),)


def test_copy_from_an_image() -> None:
    stage = target_of("FROM scratch\nCOPY --from=quay.io/x/y:1 /a /b")
    step = stage.steps[0]
    assert isinstance(step, CopyStep) and step.origin == FromImage("quay.io/x/y:1")
    assert stage.images == (ExternalImage("quay.io/x/y:1", AMD64),)
    assert isinstance(stage.base, ScratchBase)


def test_copy_from_scratch_reads_no_image() -> None:
    stage = target_of("FROM a\nCOPY --from=scratch /a /b")
    step = stage.steps[0]
    assert isinstance(step, CopyStep) and step.origin == FromImage(SCRATCH)
    assert stage.images == ()


@pytest.mark.parametrize(
    "text",
    [
        "FROM a\nCOPY --from=0 /x /y",
        "FROM a AS b\nCOPY --from=c /x /y\nFROM a AS c\nCOPY --from=b /x /y\nFROM scratch",
        "FROM a AS b\nRUN --mount=from=b,target=/x y",
    ],
)
def test_a_circle_is_refused_even_where_no_target_leads(text: str) -> None:
    with pytest.raises(DockerfileError, match="circle"):
        plan_of(text)


def test_a_long_chain_of_stages() -> None:
    text = "FROM a AS s0\n" + "".join(f"FROM s{n} AS s{n + 1}\n" for n in range(1500))
    assert len(plan_of(text).stages) == 1501


@pytest.mark.parametrize("instruction", ["COPY --from=later /x /y", "RUN --mount=from=later,target=/x y"])
def test_a_stage_must_be_defined_before_it_is_read(instruction: str) -> None:
    text = f"FROM a AS early\n{instruction}\nFROM a AS later\n"
    with pytest.raises(DockerfileError, match="before it is defined") as caught:
        plan_of(text, targets=("early",))
    assert caught.value.location is not None and caught.value.location.start == 2
    assert plan_of(text).targets == (1,)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("FROM a\nCOPY --from=5 /x /y", "index"),
        ("FROM a\nCOPY --from=$X /x /y", "variables"),
        ("FROM a\nCOPY --from=UPPER/Case /x /y", "UPPER/Case"),
        ("FROM UPPER/Case", "UPPER/Case"),
        ("FROM a:", "a:"),
        ("FROM $X", "empty"),
        ("FROM --platform=$X a", "empty"),
        ("FROM --platform=a/b/c/d a", "platform"),
        ("ARG A", "no stage"),
    ],
)
def test_a_base_that_means_nothing(text: str, said: str) -> None:
    with pytest.raises(DockerfileError) as caught:
        plan_of(text)
    assert said in caught.value.message
    assert caught.value.location is not None


def test_an_undeclared_argument_is_suggested() -> None:
    with pytest.raises(DockerfileError) as caught:
        plan_of("FROM --platform=$BULIDPLATFORM scratch")
    assert "BUILDPLATFORM" in caught.value.hint


def test_platforms() -> None:
    planned = plan_of("FROM --platform=$BUILDPLATFORM a AS x\nFROM a\nCOPY --from=x / /", target_platform=ARM64)
    build, target = planned.stage(0), planned.stage(1)
    assert isinstance(build.base, ImageBase) and isinstance(target.base, ImageBase)
    assert (build.base.platform, target.base.platform) == (AMD64, ARM64)
    assert (build.platform, target.platform) == (AMD64, ARM64)
    assert planned.images == (ExternalImage(A, AMD64), ExternalImage(A, ARM64))


def test_without_target_platform_the_base_says_what_the_image_is() -> None:
    assert target_of("FROM --platform=linux/s390x a").platform == Platform("linux", "s390x")
    assert target_of("FROM --platform=linux/s390x a", target_platform=ARM64).platform == ARM64


def test_scratch_takes_the_target_platform() -> None:
    stage = target_of("FROM --platform=linux/s390x scratch", target_platform=ARM64)
    assert stage.platform == ARM64
    assert (stage.final.env, stage.final.working_dir) == ((PATH,), "/")


def test_a_base_without_path_gets_one_at_the_end() -> None:
    images = {A: base_image(env=("X=1",))}
    assert target_of("FROM a", images).final.env == ("X=1", PATH)


def test_a_child_inherits_everything_but_triggers() -> None:
    healthcheck = Healthcheck(("CMD", "h"), interval=5)
    images = {A: base_image(user="u", working_dir="/w", author="me", healthcheck=healthcheck, shell=("/bin/zsh", "-c"))}
    stage = target_of("FROM a AS x\nONBUILD ENV T=1\nLABEL k=v\nFROM x\nCMD y", images)
    assert (stage.final.user, stage.final.working_dir, stage.author) == ("u", "/w", "me")
    assert stage.final.cmd == ("/bin/zsh", "-c", "y")
    assert stage.final.healthcheck == healthcheck
    assert stage.final.on_build == ()
    assert created_by(stage) == ["ENV T=1", 'CMD ["/bin/zsh" "-c" "y"]']


class TestTriggers:
    """ONBUILD of a base image, or of another stage."""

    def test_they_run_first_and_are_spent(self) -> None:
        images = {A: base_image(on_build=("ARG X=1", "RUN echo $X", "LABEL a=$X"))}
        stage = target_of("FROM a\nRUN mine", images)
        assert created_by(stage) == [
            "ARG X=1",
            "RUN |1 X=1 /bin/sh -c echo $X # buildkit",
            "LABEL a=1",
            "RUN |1 X=1 /bin/sh -c mine # buildkit",
        ]
        assert stage.final.on_build == ()
        assert stage.steps[1].location.start == 1
        assert stage.steps[1].text == "ONBUILD RUN echo $X"

    def test_they_run_once_only(self) -> None:
        images = {A: base_image(on_build=("RUN ob",))}
        planned = plan_of("FROM a AS x\nFROM x", images)
        assert [len(stage.steps) for stage in planned.stages] == [1, 0]

    def test_they_bring_dependencies(self) -> None:
        images = {A: base_image(on_build=("COPY --from=assets /x /y", "COPY --from=b /x /z"))}
        text = "FROM c AS assets\nRUN 1\nFROM a AS app\nFROM c AS other"
        planned = plan_of(text, images, targets=("app",))
        assert [stage.index for stage in planned.stages] == [0, 1]
        assert planned.stage(1).dependencies == (0,)
        assert ExternalImage(B, AMD64) in planned.images

    def test_they_may_read_a_later_stage(self) -> None:
        images = {A: base_image(on_build=("COPY --from=assets /x /y",))}
        planned = plan_of("FROM a AS app\nFROM c AS assets\nRUN 1\nFROM app", images)
        assert [stage.index for stage in planned.stages] == [1, 0, 2]

    def test_a_circle_through_one(self) -> None:
        images = {A: base_image(on_build=("COPY --from=top /x /y",))}
        with pytest.raises(DockerfileError, match="circle"):
            plan_of("FROM a AS app\nFROM app AS top", images)

    @pytest.mark.parametrize("trigger", ["FROM x", "RUN a\nRUN b", "BOGUS", ""])
    def test_a_broken_one_is_reported_at_from(self, trigger: str) -> None:
        with pytest.raises(DockerfileError) as caught:
            plan_of("\nFROM a", {A: base_image(on_build=(trigger,))})
        assert caught.value.location is not None and caught.value.location.start == 2


class TestNamedContexts:
    """--build-context name=..."""

    def test_an_image_in_place_of_a_base(self) -> None:
        for name in ("a", "a:latest", "docker.io/library/a"):
            base = target_of("FROM a", named_contexts={name: "docker-image://quay.io/b"}).base
            assert isinstance(base, ImageBase) and base.reference == "quay.io/b:latest"

    def test_a_layout_in_place_of_a_base(self) -> None:
        base = target_of("FROM a:1", named_contexts={"a:1": "oci-layout:///dir"}).base
        assert isinstance(base, ImageBase) and base.reference == "oci-layout:///dir"

    def test_another_tag_is_another_name(self) -> None:
        base = target_of("FROM a:1", named_contexts={"a": "docker-image://b"}).base
        assert isinstance(base, ImageBase) and base.reference == "docker.io/library/a:1"

    def test_an_image_in_place_of_a_stage(self) -> None:
        asked: list[tuple[str, Platform]] = []
        planned = plan_of(
            "FROM a AS deps\nRUN never\nFROM c\nCOPY --from=deps /x /y",
            asked=asked,
            named_contexts={"deps": "docker-image://b"},
        )
        assert planned.stage(0).steps == ()
        assert (B, AMD64) in asked and (A, AMD64) not in asked

    def test_a_directory_for_copy_and_mount(self) -> None:
        stage = target_of(
            "FROM a\nCOPY --from=src x /y\nRUN --mount=from=src,target=/m z", named_contexts={"src": "/some/dir"}
        )
        copy = stage.steps[0]
        assert isinstance(copy, CopyStep) and copy.origin == FromNamedContext("src")
        assert stage.contexts == ("src",)
        assert not stage.uses_context

    def test_a_directory_in_place_of_a_base(self) -> None:
        stage = target_of("FROM rootfs\nCMD x", named_contexts={"rootfs": "dir"})
        assert isinstance(stage.base, ScratchBase)
        fill = stage.steps[0]
        assert isinstance(fill, CopyStep) and fill.origin == FromNamedContext("rootfs")
        assert (fill.sources, fill.destination) == (("/",), "/")
        assert fill.history is not None and not fill.history.empty_layer
        assert stage.final.env == (PATH,)

    def test_stages_go_before_contexts_and_reserved_names_stay(self) -> None:
        contexts = {"x": "dir", "scratch": "docker-image://b"}
        assert isinstance(target_of("FROM scratch", named_contexts=contexts).base, ScratchBase)
        planned = plan_of("FROM a AS y\nFROM b\nCOPY --from=y / /", named_contexts={"Y": "dir"})
        copy = planned.stage(1).steps[0]
        assert isinstance(copy, CopyStep) and copy.origin == FromStage(0)


def test_images_that_can_be_fetched_beforehand() -> None:
    text = b"ARG V=1\nFROM a:$V AS x\nFROM never\nFROM --platform=linux/arm64 b\nCOPY --from=x / /\nCOPY --from=c:2 / /"
    options = PlanOptions(build_platform=AMD64)
    assert set(external_images(parse(text, "Dockerfile"), options)) == {
        ExternalImage("docker.io/library/a:1", AMD64),
        ExternalImage(B, ARM64),
        ExternalImage("docker.io/library/c:2", AMD64),
    }


def test_a_base_of_another_platform_is_found_out() -> None:
    planned = plan_of("FROM a", {A: base_image(ARM64)})
    assert rules(planned) == [("InvalidBaseImagePlatform", 1)]
