"""SOURCE_DATE_EPOCH."""

from __future__ import annotations

import pytest

from builder.dockerfile import parse
from builder.errors import DockerfileError, UsageError
from builder.oci.config import History
from builder.plan import PlanOptions, plan
from builder.steps.step import RunStep
from tests.plan.planning import AMD64, base_image, bases, plan_of, target_of

STAGE = "FROM scratch AS src\n{commands}FROM a\nARG SOURCE_DATE_EPOCH\nRUN x\n"


def planned_with_time(commands: str, asked: list[str], **build_args: str) -> RunStep:
    def time_of(source: str) -> int | None:
        asked.append(source)
        return 1_000_000_000

    options = PlanOptions(build_platform=AMD64, build_args={"SOURCE_DATE_EPOCH": "src", **build_args})
    text = STAGE.format(commands=commands)
    step = plan(parse(text.encode(), "Dockerfile"), options, bases({}), time_of).stage(1).steps[-1]
    assert isinstance(step, RunStep)
    return step


def test_new_history_gets_the_time_and_the_base_keeps_its_own() -> None:
    old = History(created="2020-01-01T00:00:00Z", created_by="base")
    images = {"docker.io/library/a:latest": base_image(history=(old,))}
    planned = plan_of("FROM a\nRUN x\nENV a=b", images, build_args={"SOURCE_DATE_EPOCH": "1700000000"})
    assert planned.epoch == 1_700_000_000
    assert [step.history and step.history.created for step in planned.stage(0).steps] == ["2023-11-14T22:13:20Z"] * 2


def test_a_global_arg_is_enough() -> None:
    assert plan_of("ARG SOURCE_DATE_EPOCH=5\nFROM a").epoch == 5
    assert plan_of("ARG SOURCE_DATE_EPOCH=5\nFROM a", build_args={"SOURCE_DATE_EPOCH": ""}).epoch is None
    assert plan_of("FROM a\nARG SOURCE_DATE_EPOCH=5").epoch is None


def test_run_sees_a_number_whatever_was_given() -> None:
    step = target_of(
        "FROM a\nARG SOURCE_DATE_EPOCH\nRUN x", build_args={"SOURCE_DATE_EPOCH": "context"}, epochs={"context": 7}
    ).steps[-1]
    assert isinstance(step, RunStep) and step.env["SOURCE_DATE_EPOCH"] == "7"


def test_a_context_without_time_sets_nothing() -> None:
    planned = plan_of("FROM a", build_args={"SOURCE_DATE_EPOCH": "context"})
    assert planned.epoch is None
    assert (
        plan_of("FROM a", build_args={"SOURCE_DATE_EPOCH": "n"}, named_contexts={"n": "d"}, epochs={"n": 3}).epoch == 3
    )


def test_a_stage_of_one_remote_add() -> None:
    asked: list[str] = []
    step = planned_with_time("ARG V=1\nADD https://h/f-$V.tar /\n", asked, V="2")
    assert asked == ["https://h/f-2.tar"]
    assert step.env["SOURCE_DATE_EPOCH"] == "1000000000"


@pytest.mark.parametrize(
    "commands",
    ["", "COPY a /\n", "ADD local /\n", "ADD https://h/a https://h/b /\n", "ADD https://h/a /\nRUN x\n"],
)
def test_a_stage_that_is_no_source(commands: str) -> None:
    with pytest.raises(DockerfileError) as caught:
        planned_with_time(commands, [])
    assert caught.value.location is not None and caught.value.location.start == 1


def test_a_stage_whose_source_cannot_be_asked() -> None:
    with pytest.raises(UsageError, match="https://h/a"):
        plan_of(STAGE.format(commands="ADD https://h/a /\n"), build_args={"SOURCE_DATE_EPOCH": "src"})


def test_what_means_nothing() -> None:
    with pytest.raises(DockerfileError, match="not-a-timestamp") as caught:
        plan_of("ARG SOURCE_DATE_EPOCH=not-a-timestamp\nFROM scratch")
    assert caught.value.location is not None and caught.value.location.start == 1


def test_a_time_beyond_what_an_image_can_say() -> None:
    with pytest.raises(DockerfileError, match="9999"):
        plan_of("FROM a", build_args={"SOURCE_DATE_EPOCH": "999999999999999"})
