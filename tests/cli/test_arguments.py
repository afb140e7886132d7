"""pflag's grammar, and what pipelines need beside it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.cli.arguments import Arguments, find_command, parse
from builder.cli.flags import FLAGS, flags_of
from builder.errors import UsageError


def parsed(*argv: str, command: str = "build", **env: str) -> Arguments:
    return parse(command, argv, env)


def refused(*argv: str, command: str = "build", **env: str) -> UsageError:
    with pytest.raises(UsageError) as raised:
        parse(command, argv, env)
    return raised.value


@pytest.mark.parametrize("argv", [["--context=a"], ["--context", "a"], ["-c", "a"], ["-c=a"], ["-ca"]])
def test_ways_to_give_a_value(argv: list[str]) -> None:
    assert parsed(*argv).text("context") == "a"


def test_a_value_may_look_like_a_flag() -> None:
    assert parsed("--context", "--no-push").text("context") == "--no-push"
    assert not parsed("--context", "--no-push").is_set("no-push")


def test_the_last_of_several_counts() -> None:
    assert parsed("--context=a", "-c", "b").text("context") == "b"


def test_a_bool_takes_a_value_only_with_equals() -> None:
    assert parsed("--no-push").is_set("no-push")
    assert not parsed("--no-push=false").is_set("no-push")
    assert parsed("--no-push", "false").positionals == ("false",)
    assert parsed("--no-push", "false").is_set("no-push")
    error = refused("--no-push=yes")
    assert "--no-push: 'yes'" in error.message and "true or false" in error.message


def test_a_repeatable_flag_keeps_commas() -> None:
    assert parsed("--build-arg", "A=1,2", "--build-arg=B=x=y").items("build-arg") == ("A=1,2", "B=x=y")


def test_targets_are_split_at_commas() -> None:
    assert parsed("--target=a,b", "--target", '"c,d"').items("target") == ("a", "b", "c,d")


def test_maps_keep_the_last_value_of_a_key() -> None:
    assert parsed("--annotation=a=1", "--annotation=a=2=3").mapping("annotation") == {"a": "2=3"}
    assert "expected key=value, got a" in refused("--annotation=a").message


def test_a_flag_that_needs_a_value() -> None:
    assert refused("--context").message == "--context needs a value"
    assert refused("-c").message == "-c needs a value"


def test_unknown_flags() -> None:
    error = refused("--contxt=a")
    assert error.message == "unknown flag: --contxt"
    assert error.hint == "did you mean --context?"
    assert "--help" in refused("--zzzzzzzz").hint
    assert refused("-z").message == "unknown shorthand flag: 'z' in -z"
    assert refused("---context").message == "---context: not a flag"


def test_hidden_flags_are_not_suggested() -> None:
    assert "bucket" not in refused("--buckett=a").hint


def test_two_dashes_end_the_flags() -> None:
    arguments = parsed("--no-push", "--", "--context=a", command="build")
    assert arguments.positionals == ("--context=a",)
    assert arguments.text("context") == "/workspace/"


def test_positionals_and_flags_alternate() -> None:
    arguments = parsed("a", "--destination", "r/x", "b", command="push")
    assert arguments.positionals == ("a", "b")
    assert arguments.items("destination") == ("r/x",)


def test_an_empty_value_is_the_flag_not_given() -> None:
    assert parsed("--context=").text("context") == "/workspace/"
    assert parsed("--context=a", "--context=").text("context") == "/workspace/"
    assert not parsed("--no-push=").is_set("no-push")
    assert parsed("--build-arg=A=1", "--build-arg=").items("build-arg") == ("A=1",)
    assert parsed("--target", "").items("target") == ()
    assert "context" not in parsed("--context=").given


def test_an_empty_list_of_credential_helpers_means_none() -> None:
    assert "credential-helpers" in parsed("--credential-helpers=").given


def test_the_list_form_takes_zero_or_more_values() -> None:
    arguments = parsed("--build-args", "A=1", "B=two words", "--labels", "--destinations", "r/x", "--no-push")
    assert arguments.items("build-arg") == ("A=1", "B=two words")
    assert arguments.items("label") == ()
    assert arguments.items("destination") == ("r/x",)
    assert arguments.is_set("no-push")
    assert parsed("--tags", "--", "x").items("tags") == ()


def test_the_list_form_with_equals_takes_one_argument() -> None:
    assert parsed('--build-args=["A=1", "B=x\\ny"]').items("build-arg") == ("A=1", "B=x\ny")
    assert parsed('--labels={"a": "b c"}').items("label") == ("a=b c",)
    assert parsed("--labels=").items("label") == ()
    assert "JSON array" in refused("--labels=[1]").message


def test_arguments_as_json_count_where_they_stand() -> None:
    arguments = parsed("--context=a", '--args-json=["--context", "b", "--label", "x=y"]', "--label=z=1")
    assert arguments.text("context") == "b"
    assert arguments.items("label") == ("x=y", "z=1")
    assert "JSON array" in refused("--args-json={}").message
    assert parsed("--args-json=").given == frozenset()


@given(st.lists(st.text()))
def test_any_value_survives_in_json(values: list[str]) -> None:
    assert parsed("--build-args=" + json.dumps(values)).items("build-arg") == tuple(values)


@given(st.lists(st.text().filter(lambda text: not text.startswith("-"))))
def test_any_value_without_a_dash_survives_in_the_list_form(values: list[str]) -> None:
    assert parsed("--build-args", *values, "--no-push").items("build-arg") == tuple(values)


@given(st.lists(st.text()))
def test_no_command_line_breaks_the_parser(argv: list[str]) -> None:
    try:
        parsed(*argv)
    except UsageError as error:
        assert error.message


def test_deprecated_spellings_work_and_say_so() -> None:
    arguments = parsed("--customPlatform=linux/arm64")
    assert arguments.text("custom-platform") == "linux/arm64"
    assert arguments.notices == ("--customPlatform is deprecated: write --custom-platform",)


def test_a_flag_without_meaning_says_what_it_does_now_once() -> None:
    arguments = parsed("--use-new-run", "--use-new-run=true", "--snapshot-mode=redo")
    assert [notice.partition(" has no effect")[0] for notice in arguments.notices] == [
        "--snapshot-mode",
        "--use-new-run",
    ]
    assert parsed("--use-new-run=false", "--snapshot-mode=full").notices == ()


def test_choices() -> None:
    assert parsed("--verbosity=DEBUG").text("verbosity") == "debug"
    assert "docker, oci" in refused("--image-format=OCI").message


def test_environment_as_default() -> None:
    assert parsed(KANIKO_CLEANUP="true").is_set("cleanup")
    assert not parsed("--cleanup=false", KANIKO_CLEANUP="true").is_set("cleanup")
    assert not parsed(KANIKO_CLEANUP="perhaps").is_set("cleanup")
    assert parsed(KANIKO_DIR="/w").text("kaniko-dir") == "/w"
    assert parsed("--kaniko-dir=/x", KANIKO_DIR="/w").text("kaniko-dir") == "/x"


def test_environment_that_is_added() -> None:
    arguments = parsed(
        "--registry-mirror=a", "--registry-map=q=b", KANIKO_REGISTRY_MIRROR="c,d", KANIKO_REGISTRY_MAP="q=e;r=f"
    )
    assert arguments.items("registry-mirror") == ("a", "c,d")
    assert arguments.targets("registry-map") == {"q": ("b", "e"), "r": ("f",)}


def test_environment_that_wins() -> None:
    assert parsed(KANIKO_NO_PUSH="true").is_set("no-push")
    assert not parsed("--no-push", KANIKO_NO_PUSH="false").is_set("no-push")
    assert "KANIKO_NO_PUSH" in refused(KANIKO_NO_PUSH="maybe").message


def test_help_asks_for_nothing_else() -> None:
    assert parsed("--help", KANIKO_NO_PUSH="maybe").help
    assert parsed("-h").help


@pytest.mark.parametrize(
    ("argv", "position"),
    [
        (["plan"], 0),
        (["--verbosity=debug", "version"], 1),
        (["--verbosity", "plan", "version"], 2),
        (["-v", "plan", "plan"], 2),
        (["--no-push", "plan"], 1),
        (["--build-args", "plan", "push", "--no-push"], None),
        (["--", "plan"], None),
        (["nothing", "plan"], None),
        ([], None),
    ],
)
def test_where_a_command_stands(argv: list[str], position: int | None) -> None:
    assert find_command(argv, ("plan", "version", "push"), flags_of("build")) == position


def test_the_table_is_consistent() -> None:
    """A spelling or a short flag means one thing within a command, and defaults are values."""
    for command in {command for flag in FLAGS for command in flag.commands}:
        members = [flag for flag in FLAGS if command in flag.commands]
        spellings = [
            spelling
            for flag in members
            for spelling in {flag.name, *flag.aliases, *flag.deprecated_aliases, *filter(None, [flag.many])}
        ]
        assert len(spellings) == len(set(spellings)), command
        shorts = [flag.short for flag in members if flag.short]
        assert len(shorts) == len(set(shorts)), command
        parse(command, [], {})
    for flag in FLAGS:
        assert not flag.choices or flag.default in ("", *flag.choices), flag.name
        assert flag.help.endswith("."), flag.name
