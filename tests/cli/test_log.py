"""The log in its four forms of lines."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.cli.errors import Failure
from builder.cli.output import Output
from builder.cli.output.lines import LineSplitter
from builder.cli.output.progress_file import ProgressFile
from builder.cli.output.quantities import bytes_text, seconds_text
from builder.cli.output.redaction import Redactor
from builder.cli.settings import LogFormat, LogSettings
from builder.events import (
    BuildStarted,
    Event,
    Message,
    Published,
    SnapshotStarted,
    StageFinished,
    StageStarted,
    StepFinished,
    StepOutput,
    StepStarted,
    Transfer,
)

ROOT = Path(__file__).parents[2]
DIGEST = "sha256:" + "ab" * 32
BUILD: tuple[Event, ...] = (
    Message("Retrieving image manifest debian:12"),
    Message("looking", "debug"),
    BuildStarted(2, 3, {10: ["/z"], 0: ["/a", "/b c"]}),
    StageStarted("build", "debian:12", 2, 0, -1),
    StepStarted("build", 1, 2, "RUN make"),
    StepOutput("build", 1, b"one\ntw"),
    StepOutput("build", 1, "o ü\n".encode() + b"no newline"),
    SnapshotStarted("build", 1, everywhere=True),
    StepFinished("build", 1, 2.25, layer_digest=DIGEST, layer_size=1_500_000),
    StepStarted("build", 2, 2, "ENV A=1"),
    StepFinished("build", 2, 0.0),
    StageFinished("build", 2.3),
    StageStarted("1", "build", 1, 1, 0),
    StepStarted("1", 1, 1, "COPY --from=build /a /a"),
    StepFinished("1", 1, 0.0, cached=True, layer_digest=DIGEST, layer_size=10),
    StageFinished("1", 0.0),
    Transfer("k", "push", "r.example/app layer", 10, 10, True),
    Published("r.example/app:1", DIGEST),
)


def written(log_format: LogFormat, *events: Event, level: str = "info", clock: bool = False) -> list[str]:
    stream = io.StringIO()
    with Output(LogSettings(level, log_format, clock), stream) as output:
        for event in events:
            output.tell(event)
    return stream.getvalue().splitlines()


def test_plain_has_one_stable_line_for_each_step() -> None:
    assert [re.sub(r"\[\d{4}\]", "[0000]", line) for line in written("plain", *BUILD)] == [
        "INFO[0000] Retrieving image manifest debian:12",
        "INFO[0000] Built cross stage deps: map[0:[/a /b c] 10:[/z]]",
        "INFO[0000] Building stage 'debian:12' [idx: '0', base-idx: '-1'] build",
        "INFO[0000] [build 1/2] RUN make",
        "[build 1/2] one",
        "[build 1/2] two ü",
        "[build 1/2] no newline",
        "INFO[0000] Taking snapshot of full filesystem...",
        "INFO[0000] [build 1/2] done in 2.2s, layer of 1.5 MB",
        "INFO[0000] [build 2/2] ENV A=1",
        "INFO[0000] Building stage 'build' [idx: '1', base-idx: '0']",
        "INFO[0000] [1 1/1] COPY --from=build /a /a",
        "INFO[0000] [1 1/1] cached, layer of 10 B",
        f"INFO[0000] Pushed r.example/app@{DIGEST}",
    ]


def test_color_is_plain_with_colors() -> None:
    stripped = [re.sub(r"\x1b\[\d*m", "", line) for line in written("color", *BUILD)]
    assert stripped == written("plain", *BUILD)
    assert written("color", Message("x", "warning"))[0].startswith("\x1b[33mWARN\x1b[0m[")


def test_text_is_logfmt() -> None:
    lines = written("text", Message('say "hi"'), Message("word", "warning"), StepOutput("a", 1, b"raw\n"))
    time = r'time="\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"'
    assert re.fullmatch(time + r' level=info msg="say \\"hi\\""', lines[0])
    assert re.fullmatch(time + " level=warning msg=word", lines[1])
    assert lines[2] == "[a 1/?] raw"


def test_json_is_one_object_a_line() -> None:
    objects = [json.loads(line) for line in written("json", *BUILD)]
    assert all({"level", "msg", "time"} <= set(value) for value in objects)
    assert [value["msg"] for value in objects if value.get("event") == "output"] == ["one", "two ü", "no newline"]
    (done,) = [value for value in objects if value.get("event") == "step-done" and value["stage"] == "build"]
    assert (done["step"], done["seconds"], done["cached"], done["size"]) == (1, 2.25, False, 1_500_000)
    (pushed,) = [value for value in objects if value.get("event") == "pushed"]
    assert (pushed["reference"], pushed["digest"]) == ("r.example/app:1", DIGEST)


def test_levels() -> None:
    levels = ("trace", "debug", "info", "warning", "error")
    events = [Message(level, level) for level in levels]
    for count, level in enumerate((*levels, "fatal")):
        assert [line.partition("] ")[2] for line in written("plain", *events, level=level)] == list(levels[count:])


def test_the_output_of_run_is_shown_at_every_level() -> None:
    assert written("plain", StepOutput("a", 1, b"x\n"), level="fatal") == ["[a 1/?] x"]


def test_the_time_of_day() -> None:
    assert re.match(r"INFO\[\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\] x$", written("plain", Message("x"), clock=True)[0])


def test_lines_of_stages_side_by_side_are_whole() -> None:
    stream = io.StringIO()
    with Output(LogSettings(), stream) as output:

        def work(stage: str) -> None:
            for _ in range(200):
                output.tell(StepOutput(stage, 1, b"abc"))
                output.tell(StepOutput(stage, 1, b"def\n"))

        threads = [threading.Thread(target=work, args=(str(number),)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    lines = stream.getvalue().splitlines()
    assert sorted(lines) == sorted(f"[{number} 1/?] abcdef" for number in range(4) for _ in range(200))


def test_a_broken_stream_does_not_stop_the_build() -> None:
    program = """
from builder.cli.output import Output
from builder.cli.settings import LogSettings
with Output(LogSettings()) as output:
    output.say("x")
print("still here")
"""
    with open("/dev/full", "w") as full:
        run = subprocess.run(
            [sys.executable, "-c", program], cwd=ROOT, stderr=full, stdout=subprocess.PIPE, text=True, check=False
        )
    assert (run.stdout, run.returncode) == ("still here\n", 0)


@given(st.binary(), st.lists(st.integers(0, 40)))
def test_lines_do_not_depend_on_the_pieces(data: bytes, cuts: list[int]) -> None:
    whole, cut = LineSplitter(), LineSplitter()
    expected = [*whole.feed(data), *whole.close()]
    found, rest = [], data
    for size in cuts:
        found += cut.feed(rest[:size])
        rest = rest[size:]
    assert [*found, *cut.feed(rest), *cut.close()] == expected
    assert len(expected) == data.count(b"\n") + (not data.endswith(b"\n") and data != b"")


def test_a_line_that_overwrites_itself() -> None:
    splitter = LineSplitter()
    assert list(splitter.feed(b"10%\r50%\r100%\r\nnext\r")) == ["100%"]
    assert list(splitter.close()) == ["next"]


def test_a_line_without_an_end_does_not_grow() -> None:
    splitter = LineSplitter()
    pieces = [line for _ in range(100) for line in splitter.feed(b"x" * 10_000)]
    assert sum(map(len, [*pieces, *splitter.close()])) == 1_000_000
    assert len(pieces) > 10


class TestRedaction:
    @pytest.mark.parametrize("log_format", ["plain", "color", "text", "json"])
    def test_a_secret_never_appears(self, log_format: LogFormat) -> None:
        secret = 'pa"ss\\wörd'
        stream = io.StringIO()
        with Output(LogSettings("trace", log_format), stream) as output:
            output.redactor.add(secret)
            output.redactor.add(b"first line\nsecond line\n")
            output.say(f"the password is {secret}!")
            output.tell(StepStarted("a", 1, 1, f"RUN login {secret}"))
            output.tell(StepOutput("a", 1, f"{secret[:4]}".encode()))
            output.tell(StepOutput("a", 1, f"{secret[4:]}\nsecond line\n".encode()))
            output.fail(Failure(f"m {secret}", f"h {secret}", (f"q {secret}",), (f"t {secret}",), 1))
        text = stream.getvalue()
        assert "***" in text
        assert secret not in text
        assert json.dumps(secret)[1:-1] not in text
        assert json.dumps(secret, ensure_ascii=False)[1:-1] not in text
        assert "second line" not in text

    def test_the_longest_first(self) -> None:
        redactor = Redactor()
        redactor.add("secret")
        redactor.add("secret-and-more")
        assert redactor.mask("a secret-and-more, a secret") == "a ***, a ***"

    def test_short_values_are_left_alone(self) -> None:
        redactor = Redactor()
        redactor.add("1")
        redactor.add("root")
        assert redactor.mask("root 1") == "root 1"


def test_quantities() -> None:
    assert [bytes_text(n) for n in (0, 999, 1000, 999_949, 999_950, 10**9, 5 * 10**12)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "999.9 kB",
        "1.0 MB",
        "1.0 GB",
        "5000.0 GB",
    ]
    assert [seconds_text(s) for s in (0, 0.26, 59.9, 59.96, 3599, 3600.4)] == [
        "0.0s",
        "0.3s",
        "59.9s",
        "1m00s",
        "59m59s",
        "1h00m",
    ]


def test_the_progress_file(tmp_path: Path) -> None:
    path = tmp_path / "progress"
    progress, seen = ProgressFile(path), []
    for event in BUILD:
        progress.tell(event)
        text = path.read_text() if path.exists() else ""
        if not seen or seen[-1] != text:
            seen.append(text)
    assert [text for text in seen if text] == ["0/3", "1/3", "2/3", "3/3"]


def test_a_progress_file_that_cannot_be_written_is_given_up(tmp_path: Path) -> None:
    progress = ProgressFile(tmp_path / "no" / "progress")
    for event in BUILD:
        progress.tell(event)


def test_the_summary() -> None:
    stream = io.StringIO()
    with Output(LogSettings(), stream) as output:
        for event in BUILD:
            output.tell(event)
        stream.truncate(0)
        output.finish()
    lines = [line.partition("] ")[2] for line in stream.getvalue().splitlines()]
    assert re.fullmatch(r"2 stages, 3 steps \(1 cached\), 1 new layer of 1\.5 MB in \d+\.\ds", lines[0])
    assert lines[1:] == [
        "pushed 10 B",
        "cache: 1 hit, 0 misses",
        "slowest steps:",
        "  2.2s [build 1/2] RUN make",
        f"r.example/app:1@{DIGEST}",
    ]
    assert json.dumps(output.summary.to_json())
