"""Records of builds, and what they say of the next one's misses."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.cache.record import BuildRecord, RecordedStage, RecordedStep, shortened, why_missed
from builder.errors import ImageError

TEXTS = st.text(max_size=3)
INPUTS = st.dictionaries(TEXTS, TEXTS, max_size=3)
STAGES = st.builds(RecordedStage, INPUTS, st.lists(st.builds(RecordedStep, TEXTS, TEXTS, INPUTS)).map(tuple))


@settings(deadline=None)
@given(st.dictionaries(TEXTS, STAGES, max_size=3))
def test_what_is_written_is_read(stages: dict[str, RecordedStage]) -> None:
    assert BuildRecord.decode(BuildRecord(stages).encode()) == BuildRecord(stages)


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b"1", b'{"a": 1}', b'{"a": {"base": [], "steps": []}}', b'{"a": {"base": {}, "steps": [[1]]}}'],
)
def test_garbage_is_an_error(data: bytes) -> None:
    with pytest.raises(ImageError):
        BuildRecord.decode(data)


def record(*steps: tuple[str, dict[str, str]], base: str = "base") -> BuildRecord:
    recorded = (RecordedStep(text, "key", shortened(inputs)) for text, inputs in steps)
    return BuildRecord({"s": RecordedStage(shortened({"the base image": base}), tuple(recorded))})


RUN = ("RUN 1", {"the instruction": "1", "variable A": "a", "mount 1": "m"})
COPY = ("COPY", {"the instruction": "copy", "what it copies": "files"})


def changed(step: tuple[str, dict[str, str]], **inputs: str | None) -> tuple[str, dict[str, str]]:
    values = {**step[1], **{name.replace("_", " "): value for name, value in inputs.items()}}
    return step[0], {name: value for name, value in values.items() if value is not None}


@pytest.mark.parametrize(
    ("before", "reason"),
    [
        (record(COPY, RUN), "it is not in the cache any more, or never was"),
        (record(COPY, RUN, base="other"), "the base image changed"),
        (record(COPY, changed(RUN, variable_A="b")), "variable A changed"),
        (record(COPY, changed(RUN, variable_A=None)), "variable A is new"),
        (record(COPY, changed(RUN, variable_B="b")), "variable B is gone"),
        (record(COPY, changed(RUN, variable_A="b", mount_1="n")), "variable A changed, mount 1 changed"),
        (record(COPY, ("RUN 2", changed(RUN, the_instruction="2")[1])), "the instruction was RUN 2"),
        (record(COPY, changed(RUN, the_instruction="2")), "the instruction changed"),
        (record(COPY), "the instruction is new"),
        (record(), "COPY before it: the instruction is new"),
        (record(changed(COPY, what_it_copies="x"), RUN), "COPY before it: what it copies changed"),
        (record(RUN, COPY), "COPY before it: the instruction was RUN 1"),
        (BuildRecord({"t": RecordedStage({}, ())}), "stage s is new"),
        (None, "no earlier build is known"),
    ],
)
def test_the_first_difference_is_the_reason(before: BuildRecord | None, reason: str) -> None:
    assert why_missed(record(COPY, RUN), before, "s", 1) == reason


def test_many_differences_are_counted() -> None:
    step = ("RUN", {f"variable {name}": "1" for name in "ABCDE"})
    other = ("RUN", {f"variable {name}": "2" for name in "ABCDE"})
    reason = why_missed(record(step), record(other), "s", 0)
    assert reason == "variable A changed, variable B changed, variable C changed and 2 more"


def test_values_cannot_be_found_in_a_record() -> None:
    """Of a variable there is so little that many values fit."""
    kept = shortened({"variable A": "secret", "what it copies": "files"})
    assert len(kept["variable A"]) == 4
    assert "secret" not in str(kept)
