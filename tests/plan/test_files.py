"""COPY, ADD and WORKDIR."""

from __future__ import annotations

import pytest

from builder.errors import DockerfileError
from builder.plan.files import destination_path
from builder.steps.step import AddStep, ConfigStep, CopyStep, HeredocFile, WorkdirStep
from tests.plan.planning import base_image, created_by, last_step, plan_of, target_of

SHA = "sha256:" + 64 * "0"
PREFIX = "FROM a AS st\nFROM a\nWORKDIR /w\nENV U=usr M=0700 E=*.log S=src D=/dst\n"


def copy_step(text: str) -> CopyStep:
    step = last_step(PREFIX + text)
    assert isinstance(step, CopyStep)
    return step


def add_step(text: str) -> AddStep:
    step = last_step(PREFIX + text)
    assert isinstance(step, AddStep)
    return step


@pytest.mark.parametrize(
    ("destination", "path"),
    [
        (".", "/w/"),
        ("", "/w/"),
        ("./", "/w/"),
        ("./.", "/w/."),
        ("x", "/w/x"),
        ("x/", "/w/x/"),
        ("x/.", "/w/x/."),
        ("..", "/"),
        ("../../y", "/y"),
        ("/", "/"),
        ("/.", "/."),
        ("//a//b/", "/a/b/"),
        ("/a/../b", "/b"),
    ],
)
def test_destinations(destination: str, path: str) -> None:
    assert destination_path("/w", destination) == path


def test_everything_but_from_and_exclude_is_expanded() -> None:
    step = copy_step("COPY --chown=$U:1 --chmod=$M --exclude=$E ${S}x 'a$b' $D")
    assert (step.sources, step.destination) == (("srcx", "a$b"), "/dst")
    assert (step.chown, step.chmod, step.exclude) == ("usr:1", "0700", ("$E",))
    assert step.history is not None
    assert step.history.created_by == "COPY --chown=usr:1 --chmod=0700 srcx a$b /dst # buildkit"


def test_history_has_few_flags_and_heredocs_last() -> None:
    step = copy_step("COPY --parents --link --from=st a/./b c /d/")
    assert step.history is not None and step.history.created_by == "COPY --parents a/./b c /d/ # buildkit"
    assert (step.parents, step.link) == (True, True)
    step = copy_step("COPY <<X a <<Y /d/\n1\nX\n2\nY")
    assert step.history is not None and step.history.created_by == "COPY a <<X <<Y /d/ # buildkit"
    assert step.sources == ("a",)


def test_a_changed_mode_means_no_link() -> None:
    assert not copy_step("COPY --link --chmod=600 a b").link
    assert not add_step("ADD --link --chmod=600 a b").link


def test_heredocs_are_expanded_unless_quoted() -> None:
    step = copy_step("COPY <<A <<'B' <<-C /\n$U \"q\" \\$U\nA\n$U\nB\n\t${U}\nC")
    assert step.heredocs == (
        HeredocFile(name="A", content='usr "q" $U\n'),
        HeredocFile(name="B", content="$U\n"),
        HeredocFile(name="C", content="usr\n"),
    )


def test_heredocs_are_escaped_with_a_backslash_whatever_the_directive_says() -> None:
    step = last_step("# escape=`\nFROM scratch\nENV U=usr\nCOPY <<A /\n\\$U `$U\nA")
    assert isinstance(step, CopyStep)
    assert step.heredocs[0].content == "$U `usr\n"


@pytest.mark.parametrize("mode", ["64a", "foo", "10000", "u+q", "=,"])
def test_a_mode_that_is_none(mode: str) -> None:
    with pytest.raises(DockerfileError, match="chmod") as caught:
        copy_step(f"COPY --chmod={mode} a b")
    assert caught.value.location is not None and caught.value.location.start == 5


@pytest.mark.parametrize(
    "source", ["https://h/f", "http://h/f.tar", "https://h/r.git#v1", "git@h:a/b.git", "ssh://git@h/a.git"]
)
def test_copy_takes_nothing_remote(source: str) -> None:
    with pytest.raises(DockerfileError, match="takes no URL"):
        copy_step(f"COPY {source} /x")
    assert add_step(f"ADD {source} /x").sources == (source,)


def test_a_path_that_looks_like_an_address_is_a_path() -> None:
    stage = target_of("FROM scratch\nADD github.com/a/b ./github.com/a/b.git /z")
    assert stage.uses_context
    assert not target_of("FROM scratch\nADD https://h/f /z").uses_context


def test_flags_of_add() -> None:
    step = add_step(f"ADD --checksum={SHA} --unpack=false --chown=1:2 https://h/f.tar /x/")
    assert (step.checksum, step.unpack, step.keep_git_dir, step.chown) == (SHA, False, None, "1:2")
    assert step.history is not None and step.history.created_by == "ADD --chown=1:2 https://h/f.tar /x/ # buildkit"
    assert add_step("ADD --checksum=abc123 --keep-git-dir https://h/r.git /x").checksum == "abc123"


@pytest.mark.parametrize(
    "text",
    [
        "--checksum=sha256:zz https://h/f",
        "--checksum=md5:0 https://h/f",
        f"--checksum={SHA} local",
        f"--checksum={SHA} https://h/f https://h/g",
        "--keep-git-dir=false https://h/r.git?keep-git-dir=1",
        "--checksum=abc https://h/r.git?checksum=def",
        "https://h/r.git?bogus=1",
    ],
)
def test_what_add_cannot_check_is_refused(text: str) -> None:
    with pytest.raises(DockerfileError) as caught:
        add_step(f"ADD {text} /x/")
    assert caught.value.location is not None and caught.value.location.start == 5


def test_workdir_makes_a_layer_except_for_the_root() -> None:
    stage = target_of("FROM a\nUSER u\nWORKDIR /x\nWORKDIR y/../z\nWORKDIR /q/\nWORKDIR /\nWORKDIR ''")
    assert [step.path for step in stage.steps if isinstance(step, WorkdirStep)] == ["/x", "/x/z", "/q/"]
    assert {step.user for step in stage.steps if isinstance(step, WorkdirStep)} == {"u"}
    assert created_by(stage)[1:] == ["WORKDIR /x", "WORKDIR /x/z", "WORKDIR /q/", "WORKDIR /", "WORKDIR /"]
    last = stage.steps[-1]
    assert isinstance(last, ConfigStep) and last.history is not None and last.history.empty_layer


def test_the_working_directory_of_the_base_counts() -> None:
    images = {"docker.io/library/a:latest": base_image(working_dir="/base")}
    step = last_step("FROM a\nCOPY x y", images)
    assert isinstance(step, CopyStep) and step.destination == "/base/y"


def test_nothing_that_was_set_before_is_forgotten_by_a_file_step() -> None:
    stage = plan_of("FROM a\nENV A=1\nLABEL l=1\nCOPY x /y").stage(0)
    assert stage.steps[-1].exec_config == stage.steps[-2].exec_config == stage.final
