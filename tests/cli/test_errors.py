"""What a failed build says."""

from __future__ import annotations

import errno

from builder.cli.errors import failure_of
from builder.errors import BuildError, CommandFailed, DockerfileError, Location, RegistryError

TEXT = "FROM debian:12\n\nCOPY . .\nRUN make \\\n  all\n\nENV A=1\n"


def shown(error: BaseException, *, trace: bool = False) -> list[str]:
    return failure_of(error, {"Dockerfile": TEXT}, trace=trace).lines()


def test_a_failed_run_quotes_its_lines() -> None:
    error = CommandFailed("RUN make all: exit code 2", code=2, location=Location("Dockerfile", 4, 5))
    assert shown(error) == [
        "error: Dockerfile:4: RUN make all: exit code 2",
        "  2 |",
        "  3 |     COPY . .",
        "  4 | >>> RUN make \\",
        "  5 | >>>   all",
        "  6 |",
        "  7 |     ENV A=1",
    ]
    assert failure_of(error, {}, trace=False).exit_code == 2


def test_a_location_is_not_said_twice() -> None:
    error = DockerfileError("Dockerfile:1: no", "do this\nor that", location=Location("Dockerfile", 1, 1))
    assert shown(error) == [
        "error: Dockerfile:1: no",
        "  1 | >>> FROM debian:12",
        "  2 |",
        "  3 |     COPY . .",
        "  do this",
        "  or that",
    ]


def test_long_instructions_are_cut() -> None:
    text = "FROM a\nRUN <<EOF\n" + "x\n" * 100 + "EOF\n"
    error = CommandFailed("m", code=1, location=Location("Dockerfile", 2, 103))
    assert len(failure_of(error, {"Dockerfile": text}, trace=False).quote) == 1 + 10 + 2


def test_a_dockerfile_that_is_not_known_is_not_quoted() -> None:
    assert shown(CommandFailed("m", code=1, location=Location("other", 1, 1))) == ["error: other:1: m"]


def test_exit_codes() -> None:
    assert failure_of(RegistryError("m", transient=True), {}, trace=False).exit_code == 75
    assert failure_of(RegistryError("m"), {}, trace=False).exit_code == 1
    assert failure_of(KeyError("x"), {}, trace=False).exit_code == 1


def test_a_bug_is_one_line() -> None:
    assert shown(KeyError("layer\n2")) == [
        "error: internal: KeyError: 'layer\\n2'",
        "  this is a bug in Limpet; --verbosity=trace shows where it happened",
    ]
    try:
        raise KeyError("layer")
    except KeyError as error:
        lines = shown(error, trace=True)
    assert lines[1] == "  this is a bug in Limpet"
    assert lines[2].startswith("Traceback")


def test_the_machine_is_at_its_end() -> None:
    full = OSError(errno.ENOSPC, "No space left on device", "/scratch/layer")
    assert shown(full)[0] == "error: /scratch/layer: No space left on device"
    assert "--work-dir" in shown(full)[1]
    assert shown(MemoryError()) == ["error: out of memory", "  give the container more memory"]


def test_of_several_errors_the_one_for_the_user() -> None:
    inner = ExceptionGroup("inner", [ValueError("x"), BuildError("the fact")])
    assert shown(ExceptionGroup("outer", [OSError("y"), inner])) == ["error: the fact"]
