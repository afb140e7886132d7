"""The live view on a real terminal (a pty), read as a terminal would show it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import sys
import termios
from pathlib import Path

from tests.cli.conftest import environment

ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys, time
from builder.cli.errors import Failure
from builder.cli.output import Output
from builder.cli.settings import LogSettings
from builder.events import *

with Output(LogSettings(format="live")) as output:
    output.redactor.add("hunter22")
    output.say("Limpet")
    output.tell(BuildStarted(1, 2))
    output.tell(StageStarted("build", "debian:12", 2, 0, -1))
    output.tell(Transfer("k", "pull", "debian:12", 0, 10_000_000))
    time.sleep(0.3)
    output.tell(Transfer("k", "pull", "debian:12", 5_000_000, 10_000_000))
    output.tell(StepStarted("build", 1, 2, "RUN make"))
    output.tell(StepOutput("build", 1, b"compiling \\x1b[2J\\x1b]0;title\\x07hunter22\\nlast line"))
    time.sleep(0.5)
    if sys.argv[1] == "fail":
        output.fail(Failure("Dockerfile:2: RUN make: exit code 2", "hint", ("  2 | >>> RUN make",), (), 2))
    else:
        output.tell(Transfer("k", "pull", "debian:12", 10_000_000, 10_000_000, True))
        output.tell(StepFinished("build", 1, 0.5, layer_size=1_500_000))
        output.tell(StepStarted("build", 2, 2, "ENV A=1"))
        output.tell(StepFinished("build", 2, 0.0, cached=True))
        output.tell(StageFinished("build", 0.6))
        output.tell(Published("r.example/app:1", "sha256:" + "0" * 64))
        output.finish()
"""


def on_terminal(argument: str) -> str:
    """Everything that the program sends to its terminal of 30 x 100."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        os.execve(sys.executable, [sys.executable, "-c", PROGRAM, argument], environment(TERM="xterm-256color"))
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    data = b""
    try:
        while piece := os.read(terminal, 65536):
            data += piece
    except OSError:
        pass  # the other side is closed: EIO, as Linux has it
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    return data.decode()


def screen(data: str) -> str:
    """What is left on the screen: rich moves up by lines, clears lines, and writes."""
    lines, row = [""], 0
    for token in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", data):
        if token == "\n":
            row += 1
            if row == len(lines):
                lines.append("")
        elif token.endswith("A") and token.startswith("\x1b["):
            row = max(0, row - int(token[2:-1] or 1))
        elif token == "\x1b[2K":
            lines[row] = ""
        elif not token.startswith(("\x1b", "\r")):
            lines[row] += token
    return "\n".join(line.rstrip() for line in lines).rstrip()


def test_what_goes_on_is_shown_with_bytes_and_rate() -> None:
    data = on_terminal("succeed")
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", data)
    assert "0 of 2 steps" in plain
    assert re.search(r"pull debian:12  5\.0 MB of 10\.0 MB   50 %  \d+\.\d MB/s", plain)
    assert re.search(r"\[build 1/2\] 0\.\ds RUN make", plain)
    assert "│ compiling ***" in plain


def test_it_folds_into_a_summary() -> None:
    lines = screen(on_terminal("succeed")).splitlines()
    digest = "sha256:" + "0" * 64
    assert lines[:4] == [
        "Limpet",
        "[build 1/2] RUN make  0.5s  1.5 MB",
        "[build 2/2] ENV A=1  cached",
        f"Pushed r.example/app:1@{digest}",
    ]
    assert lines[5].split() == ["stage", "steps", "cached", "layers", "time"]
    assert lines[6].split() == ["build", "2", "1", "1.5", "MB", "0.6s"]
    assert lines[-1] == f"r.example/app:1@{digest}"
    assert not any("pull debian:12" in line for line in lines)


def test_a_failure_shows_what_the_step_wrote() -> None:
    assert screen(on_terminal("fail")).splitlines() == [
        "Limpet",
        "[build 1/2] compiling ***",
        "[build 1/2] last line",
        "error: Dockerfile:2: RUN make: exit code 2",
        "  2 | >>> RUN make",
        "  hint",
    ]


def test_the_output_of_run_cannot_move_the_cursor() -> None:
    data = on_terminal("fail")
    assert "\x1b[2J" not in data
    assert "\x1b]0;" not in data
    assert "\x1b[?25h" in data.rpartition("\x1b[?25l")[2]  # the cursor is shown again
