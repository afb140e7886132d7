"""Processes: which program and command is meant, exit codes, where errors go."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from builder import __version__
from tests.cli.conftest import Limpet, environment

ROOT = Path(__file__).parents[2]


@pytest.fixture
def kaniko(tmp_path: Path) -> Path:
    """A directory with `executor` and `warmer`, as the executor image has them."""
    script = tmp_path / "limpet"
    script.write_text(f"#!{sys.executable}\nfrom builder.__main__ import run\nrun()\n")
    script.chmod(0o755)
    for name in ("executor", "warmer"):
        (tmp_path / name).symlink_to(script)
    return tmp_path


def test_version(limpet: Limpet) -> None:
    assert limpet("version").stdout.split()[-1] == f"v{__version__}"
    assert json.loads(limpet("version", "--format=json").stdout) == {"version": __version__}


def test_an_interrupt_while_modules_are_loaded_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "csv.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    done = subprocess.run(
        # Whoever runs the tests may ignore it, as a shell makes its background jobs do.
        ["env", "--default-signal=INT", sys.executable, "-m", "builder", "version"],
        env={"PYTHONPATH": f"{tmp_path}:{ROOT}", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


def test_flags_may_stand_before_the_command(limpet: Limpet) -> None:
    assert __version__ in limpet("--verbosity=debug", "--log-format", "json", "version").stdout


def test_a_stray_word_is_refused(limpet: Limpet) -> None:
    result = limpet("--no-push", "true")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.splitlines() == [
        'error: unknown command "true" for "limpet"',
        "  a flag that is true or false takes its value with `=`: --flag=true",
    ]


def test_a_mistyped_command(limpet: Limpet) -> None:
    assert "did you mean `limpet plan`?" in limpet("paln").stderr
    assert "list|prune" in limpet("cache").stderr
    assert "no such command" in limpet("cache", "lsit").stderr


def test_help_for_commands_of_two_words(limpet: Limpet) -> None:
    text = limpet("cache", "--help").stdout
    assert text == limpet("help", "cache").stdout
    assert "cache list  " in text
    assert "cache prune  " in text
    assert "index create" in limpet("index", "-h").stdout


def test_errors_of_the_command_line_as_json(limpet: Limpet) -> None:
    result = limpet("--log-format=json", "--no-psh")
    assert result.returncode == 1
    (line,) = map(json.loads, result.stderr.splitlines())
    assert line["level"] == "error"
    assert line["msg"] == "unknown flag: --no-psh"
    assert line["hint"] == ["did you mean --no-push?"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "you must provide --destination, or use --no-push"),
        (["--no-push", "--image-format=docker", "--compression=zstd"], "--image-format=docker has no media type"),
        (["--secret", "id=a,env=NOT_SET", "--no-push"], "variable NOT_SET is not set"),
    ],
)
def test_contradictions_end_with_1(limpet: Limpet, argv: list[str], message: str) -> None:
    result = limpet("build", *argv)
    assert result.returncode == 1
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_called_as_kanikos_executor(limpet: Limpet, kaniko: Path) -> None:
    executor = kaniko / "executor"
    assert limpet("version", program=executor).stdout == f"Limpet version :  v{__version__}\n"
    for ask in ("--help", "help"):
        assert "executor [FLAG...]" in limpet(ask, program=executor).stdout
    assert 'unknown command "true" for "executor"' in limpet("--no-push", "true", program=executor).stderr
    # A command that kaniko does not have is a stray word there.
    assert 'unknown command "plan" for "executor"' in limpet("plan", program=executor).stderr
    assert "you must provide --destination" in limpet(program=executor).stderr


def test_called_as_kanikos_warmer(limpet: Limpet, kaniko: Path) -> None:
    result = limpet("--help", program=kaniko / "warmer")
    assert "-i, --image" in result.stdout
    assert "-c, --cache-dir" in result.stdout
    assert limpet("warmer", "--help").stdout == result.stdout


def test_a_reader_that_goes_away(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "builder", "--help"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(PYTHONUNBUFFERED="1"),
        cwd=ROOT,
    )
    assert process.stdout and process.stderr
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 1


def test_little_is_loaded_before_the_first_line(tmp_path: Path) -> None:
    """What the first line of the log needs is loaded before it; requests, rich and the rooms are not among that."""
    program = "import builder.cli.main, sys; print(*sorted(sys.modules))"
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, text=True, capture_output=True, check=True)
    loaded = set(run.stdout.split())
    assert "builder.cli.flags" in loaded
    assert not loaded & {"requests", "urllib3", "rich", "yaml", "zstandard", "isal", "argparse", "builder.build"}


def test_a_build_loads_nothing_for_what_few_builds_do() -> None:
    """Git, archives, the isolations that are not taken, the SDKs of clouds: they take longer than what is cached."""
    program = "import builder.cli.main, builder.cli.build_command, sys; print(*sorted(sys.modules))"
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, text=True, capture_output=True, check=True)
    loaded = set(run.stdout.split())
    assert "builder.stage" in loaded
    assert not loaded & {"builder.isolation.chroot", "builder.isolation.in_place", "context_sources.git", "tarfile"}
    # What a build needs that is not in the cache: it reads, unpacks or writes layers, or runs something.
    assert not loaded & {"builder.layer.writer", "builder.layer.index", "builder.layer.unpack"}
    assert not loaded & {"builder.store.store", "builder.steps.add", "isal", "zstandard"}
    assert not loaded & {"requests", "rich", "yaml", "boto3", "botocore", "google", "azure"}
