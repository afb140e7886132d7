"""Whatever the bytes are, parsing ends in a Dockerfile or in a DockerfileError with a place."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from builder.dockerfile import parse, parse_instruction
from builder.dockerfile.git_reference import parse_git_reference
from builder.dockerfile.instructions import Dockerfile
from builder.dockerfile.parser import parse_tree
from builder.dockerfile.typed import INSTRUCTIONS
from builder.errors import DockerfileError, Location

LINES = ["\n", "\\\n", "\\\\\n", "`\n", "\r\n", "\n\n", "#", "# escape=`\n", "# check=skip=a\n", " ", "\t"]
HEREDOCS = ["<<EOF", "<<-'E'", "EOF\n", "E\n", "99999999999<<X"]
ARGUMENTS = ['["a", "b"]', '["a", 1]', "[", "a=b", "$x", "${x:-", "}", "'", '"', "\\", "AS b", "NONE", "CMD", "a b c"]
FLAGS = ["--mount=", "--from=x", "--", "type=cache,", "--interval=1s"]
ODD = ["\0", "\x1c", "\x85", "\u00a0", "\u2028", "\ufeff", "\udcff"]
FRAGMENTS = st.sampled_from([*INSTRUCTIONS, *LINES, *HEREDOCS, *ARGUMENTS, *FLAGS, *ODD])
FILES = st.lists(FRAGMENTS | st.text(max_size=5), max_size=40).map(
    lambda parts: "".join(parts).encode("utf-8", "surrogatepass")
)
STARTED = FILES.map(lambda data: b"FROM a\n" + data)


def parsed(data: bytes) -> Dockerfile | None:
    try:
        return parse(data, "Dockerfile")
    except DockerfileError as error:
        assert error.location is not None
        assert error.location.start >= 1
        return None


@settings(max_examples=300)
@given(st.one_of(FILES, STARTED, st.binary(max_size=200)))
def test_parse(data: bytes) -> None:
    parsed(data)


@settings(max_examples=200)
@given(STARTED)
def test_lines_of_instructions_are_in_order_and_do_not_overlap(data: bytes) -> None:
    try:
        tree = parse_tree(data, "Dockerfile")
    except DockerfileError:
        return
    last = 0
    for node in tree.nodes:
        assert last < node.location.start <= node.location.end
        last = node.location.end
    assert last <= data.count(b"\n") + 1


@settings(max_examples=200)
@given(FILES)
def test_triggers(data: bytes) -> None:
    at = Location("Child", 3, 3)
    try:
        instruction = parse_instruction(data.decode("utf-8", "surrogateescape"), at)
    except DockerfileError as error:
        assert error.location == at
    else:
        assert instruction.location == at


@given(st.one_of(st.text(max_size=40), st.text(max_size=20).map(lambda text: f"https://h/r.git?{text}")))
def test_git_addresses(text: str) -> None:
    try:
        parse_git_reference(text)
    except DockerfileError:
        pass


def test_nesting_does_not_exhaust_the_stack() -> None:
    for text in (
        "FROM a\n" + "ONBUILD " * 5000 + "RUN x\n",
        "FROM a\nRUN " + "[" * 60_000 + "\n",
        "FROM a\nRUN <<E" + "${a:-" * 5000 + "\n",
        "FROM a\nWORKDIR " + "${a:-" * 5000 + "}" * 5000 + "\n",
    ):
        parsed(text.encode())
