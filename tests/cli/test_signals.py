"""SIGTERM and SIGINT: everything is cleaned up, unless somebody insists."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys, threading, time
from contextlib import contextmanager
from builder.cli.signals import Interrupted, ending_signals_raise

@contextmanager
def mounted():
    try:
        yield
    finally:
        print("cleaning", flush=True)
        sys.stdin.readline()
        print("clean", flush=True)

try:
    with ending_signals_raise(), mounted():
        print("ready", flush=True)
        threading.Event().wait()
except Interrupted as signal:
    sys.exit(signal.exit_code)
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_lets_everything_be_cleaned(number: signal.Signals, code: int) -> None:
    process = _started()
    assert process.stdout
    process.send_signal(number)
    assert process.stdout.readline() == "cleaning\n"
    out, err = process.communicate("go on\n")
    assert out == "clean\n"
    assert err == ""
    assert process.returncode == code


def test_further_signals_end_the_cleaning() -> None:
    process = _started()
    assert process.stdout
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "cleaning\n"
    while process.poll() is None:
        process.send_signal(signal.SIGINT)
        time.sleep(0.05)  # somebody who insists, not a flood in which Python never comes to the end of a handler
    out, err = process.communicate()
    assert out == ""
    assert err == "error: ended at once by a second signal; the work directory may be left behind\n"
    assert process.returncode == 130


def _started() -> subprocess.Popen[str]:
    # Whoever runs the tests may ignore some of them, as nohup does.
    process = subprocess.Popen(
        ["env", "--default-signal=HUP,INT,TERM", sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    return process
