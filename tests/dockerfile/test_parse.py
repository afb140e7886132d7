"""Whole files: what `parse` says about them, where it says it, and what it advises."""

from __future__ import annotations

import pytest

from builder.dockerfile import parse, parse_instruction
from builder.dockerfile.instructions import Add, Arg, Copy, Env, Healthcheck, Onbuild, Run, Workdir
from builder.errors import DockerfileError, Location


def refused(text: str | bytes) -> DockerfileError:
    with pytest.raises(DockerfileError) as caught:
        parse(text if isinstance(text, bytes) else text.encode(), "Dockerfile")
    return caught.value


def only_command(text: str) -> object:
    (stage,) = parse(text.encode(), "Dockerfile").stages
    (command,) = stage.commands
    return command


@pytest.mark.parametrize(
    ("text", "line", "message", "hint"),
    [
        ("FROM a\nRUM x\n", 2, "unknown instruction: RUM", "did you mean RUN?"),
        ("FROM a\nCOPY --form=b x y\n", 2, "unknown flag: --form", "did you mean from?"),
        ("FROM a\nCOPY --chown x y\n", 2, "missing a value on flag: --chown", "--chown=VALUE"),
        ("FROM a\nCOPY --link --link x y\n", 2, "duplicate flag", "once"),
        ("FROM a\nCOPY --link=maybe x y\n", 2, "expecting boolean value", "true or false"),
        ("FROM a\nRUN x\n\nENV \\\n  a\n", 4, "ENV must have two arguments", "ENV a=VALUE"),
        ("FROM a\nENV a=b c\n", 2, 'can\'t find = in "c"', "double quotes"),
        ("RUN x\n", 1, "no build stage in current context", "first FROM"),
        ("FROM a AS 1b\n", 1, "invalid name for build stage", "letter"),
        ("FROM a as\n", 1, "FROM requires either one or three arguments", "FROM image"),
        ("FROM a\nRUN <<EOF\nx\n", 2, "unterminated heredoc: EOF", "just EOF"),
        ('FROM a\nCMD ["a", 1]\n', 2, "comprised of strings only", "double quotes"),
        ("FROM a\nRUN --network=host-only x\n", 2, "invalid network mode", "none"),
        ("FROM a\nRUN --mount=type=bind,from=$X x\n", 2, "doesn't support variable expansion", "AS NAME"),
        ("FROM a\nHEALTHCHECK --interval=1 CMD x\n", 2, "--interval: invalid duration", "1m30s"),
        ("FROM a\nHEALTHCHECK --interval=1us CMD x\n", 2, "less than 1ms", "inherits"),
        ("FROM a\nHEALTHCHECK --retries=-1 CMD x\n", 2, "cannot be negative", ""),
        ("FROM a\nONBUILD ONBUILD RUN x\n", 2, "chaining ONBUILD", ""),
        ("FROM a\nSHELL /bin/sh\n", 2, "JSON form", "SHELL ["),
        ("FROM a\nARG --x A\n", 2, "unknown flag: --x", "no flags"),
        ("# check=skpi=x\nFROM a\n", 1, "invalid option", "skip="),
        ("# escape=x\nFROM a\n", 1, "invalid escape token", "escape="),
        ("# syntax=a\n# syntax=b\nFROM a\n", 2, "only one syntax", "line 1"),
        ("FROM a\nWORKDIR\n", 2, "exactly one argument", ""),
        ("FROM a\n\u017fHELL x\n", 2, "unknown instruction", ""),
    ],
)
def test_errors_say_where_and_what_to_do(text: str, line: int, message: str, hint: str) -> None:
    error = refused(text)
    assert error.location is not None
    assert (error.location.path, error.location.start) == ("Dockerfile", line)
    assert message in error.message
    assert hint in error.hint


def test_a_line_of_exactly_the_limit_is_read_and_one_more_byte_is_not() -> None:
    fits = b"FROM a\nRUN " + b"x" * (65_535 - 4) + b"\n"
    (command,) = parse(fits, "Dockerfile").stages[0].commands
    assert isinstance(command, Run)
    assert len(command.args[0]) == 65_531
    error = refused(fits.replace(b"xx\n", b"xxx\n"))
    assert error.location == Location("Dockerfile", 2, 2)


def test_bytes_that_are_not_utf8_pass_through() -> None:
    (command,) = parse(b"FROM a\nRUN echo \xff\n", "Dockerfile").stages[0].commands
    assert isinstance(command, Run)
    assert command.args[0].encode("utf-8", "surrogateescape") == b"echo \xff"


def test_a_heredoc_body_is_never_an_instruction() -> None:
    run = only_command("FROM a\nRUN <<EOF\nFROM evil\n# not a comment\n\\\n\nEOF\n")
    assert isinstance(run, Run)
    (heredoc,) = run.heredocs
    assert heredoc.content == "FROM evil\n# not a comment\n\\\n\n"
    assert run.location == Location("Dockerfile", 2, 7)


def test_heredocs_of_copy_are_without_their_tabs_and_those_of_run_are_not() -> None:
    copy = only_command("FROM a\nCOPY <<-one x <<'two' /to/\n\t\tindented $A\n\tone\n\tkept $A\ntwo\n")
    assert isinstance(copy, Copy)
    assert copy.sources == ("x",)
    assert [(file.name, file.content, file.expand) for file in copy.heredocs] == [
        ("one", "indented $A\n", True),
        ("two", "\tkept $A\n", False),
    ]
    run = only_command("FROM a\nRUN <<-EOF\n\tx\n\tEOF\n")
    assert isinstance(run, Run)
    assert run.heredocs[0].content == "\tx\n"


def test_flags_of_copy_and_add() -> None:
    copy = only_command(
        "FROM a\nCOPY --from=b --chown='u s:g' --chmod=u+x --link --parents --exclude=*.o --exclude=c x /y\n"
    )
    assert copy == Copy(
        location=Location("Dockerfile", 2, 2),
        code="COPY --from=b --chown='u s:g' --chmod=u+x --link --parents --exclude=*.o --exclude=c x /y",
        sources=("x",),
        destination="/y",
        source_stage="b",
        chown="u s:g",
        chmod="u+x",
        link=True,
        parents=True,
        exclude=("*.o", "c"),
    )
    add = only_command("FROM a\nADD --checksum=sha256:0 --keep-git-dir=false --unpack x /y\n")
    assert isinstance(add, Add)
    assert (add.checksum, add.keep_git_dir, add.unpack, add.link) == ("sha256:0", False, True, False)


def test_healthcheck_durations_are_nanoseconds() -> None:
    check = only_command(
        "FROM a\nHEALTHCHECK --interval=1m30s --timeout=.5s --start-period=0 --start-interval=2ms --retries=3 CMD x y\n"
    )
    assert isinstance(check, Healthcheck)
    assert check.test == ("CMD-SHELL", "x y")
    assert (check.interval, check.timeout, check.start_period) == (90_000_000_000, 500_000_000, 0)
    assert (check.start_interval, check.retries) == (2_000_000, 3)


def test_escape_directive_reaches_continuations_words_and_flags() -> None:
    dockerfile = parse(b"# escape=`\nFROM a\nENV A=b` c `\n  D=\\\nCOPY --from=x` y C:\\a C:\\b\n", "Dockerfile")
    env, copy = dockerfile.stages[0].commands
    assert isinstance(env, Env)
    assert [(pair.key, pair.value) for pair in env.pairs] == [("A", "b` c"), ("D", "\\")]
    assert isinstance(copy, Copy)
    assert (copy.source_stage, copy.sources, copy.destination) == ("x y", ("C:\\a",), "C:\\b")


def test_onbuild_keeps_heredoc_bodies_and_its_trigger_is_an_instruction() -> None:
    onbuild = only_command("FROM a\nonbuild COPY <<EOF /x\nbody\nEOF\n")
    assert isinstance(onbuild, Onbuild)
    assert onbuild.expression == "COPY <<EOF /x\nbody\nEOF"
    at = Location("Child", 7, 7)
    copy = parse_instruction(onbuild.expression, at)
    assert isinstance(copy, Copy)
    assert copy.heredocs[0].content == "body\n"
    assert copy.location == at


@pytest.mark.parametrize("text", ["", "# nothing", "RUN a\nRUN b", "FROM a", "BOGUS", "ENV a", "RUN <<E"])
def test_what_is_no_single_instruction_is_no_trigger(text: str) -> None:
    with pytest.raises(DockerfileError) as caught:
        parse_instruction(text, Location("Child", 7, 7))
    assert caught.value.location == Location("Child", 7, 7)


def test_descriptions_come_from_the_comment_above() -> None:
    dockerfile = parse(
        b"# version what to install\nARG version=1\n# other\n# build makes it\nFROM a AS build\n# X the x\n#\nARG X\n",
        "Dockerfile",
    )
    assert dockerfile.meta_args[0].args[0].doc == "what to install"
    assert dockerfile.stages[0].doc == "makes it"
    (arg,) = dockerfile.stages[0].commands
    assert isinstance(arg, Arg)
    assert arg.args[0].doc == ""


def test_check_directives_of_the_file_and_of_an_instruction_add_up() -> None:
    dockerfile = parse(
        b"# check=skip=A,B;error=true\nFROM a\n# check=skip=C // because\nWORKDIR /x\nWORKDIR /y\n", "Dockerfile"
    )
    first, second = dockerfile.stages[0].commands
    assert dockerfile.check.error
    assert (first.check.skip, second.check.skip) == ({"A", "B", "C"}, {"A", "B"})
    assert first.check.silences("C")
    assert not second.check.silences("C")
    assert second.check.silences("New", experimental=True)


def test_the_syntax_directive_is_kept() -> None:
    assert parse(b"# syntax=docker/dockerfile:1 // why\nFROM a\n", "Dockerfile").syntax == "docker/dockerfile:1"
    assert parse(b"FROM a\n", "Dockerfile").syntax == ""


def test_a_file_of_global_arguments_has_no_stages() -> None:
    assert parse(b"ARG A=1\n", "Dockerfile").stages == ()


def test_carriage_returns_end_lines_only_with_their_line_feed() -> None:
    dockerfile = parse(b"FROM a\r\nWORKDIR /a\rb\r\n", "Dockerfile")
    (workdir,) = dockerfile.stages[0].commands
    assert isinstance(workdir, Workdir)
    assert workdir.path == "/a\rb"
