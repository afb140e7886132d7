"""Start the sandbox program for one process, read what it says, end it."""

from __future__ import annotations

import marshal
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any, BinaryIO

from builder.errors import CommandFailed, IsolationError

# Imported, the program's byte code is used or made as for every module: to compile it would be half of its start.
_START = "import os, sys; sys.path.append(sys.argv.pop(1)); import sandbox; os._exit(sandbox.main())"
KILL_NOW = signal.SIGUSR1  # as the sandbox program understands it
READY = b"ready\n"  # what the sandbox program reports before it waits
GO = b"go\n"
GRACE = 5.0  # seconds between SIGTERM and SIGKILL


class Running:
    """The processes of one isolation, so that all of them can be ended from another thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._processes: set[subprocess.Popen[bytes]] = set()
        self._ended = False

    def start(self, arguments: Sequence[str], pass_fds: Sequence[int], output: int) -> subprocess.Popen[bytes]:
        """Popen, unless `end` was called. Raises IsolationError then."""
        with self._lock:
            if self._ended:
                raise IsolationError("the build was stopped")
            try:
                process = subprocess.Popen(
                    arguments,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env={},
                    cwd="/",
                    pass_fds=pass_fds,
                    start_new_session=True,
                )
            except OSError as error:
                raise IsolationError(f"cannot start {arguments[0]}: {error.strerror}") from error
            self._processes.add(process)
            return process

    def forget(self, process: subprocess.Popen[bytes]) -> None:
        with self._lock:
            self._processes.discard(process)

    @property
    def ended(self) -> bool:
        """Whether `end` was called."""
        return self._ended

    def end(self) -> None:
        """Ask every process to end with SIGTERM; none starts any more. Whoever waits for one sees it end."""
        with self._lock:
            self._ended = True
            processes = list(self._processes)
        for process in processes:
            process.send_signal(signal.SIGTERM)
        if processes:
            timer = threading.Timer(GRACE, self._kill, [processes])
            timer.daemon = True
            timer.start()

    def _kill(self, processes: list[subprocess.Popen[bytes]]) -> None:
        for process in processes:
            process.send_signal(KILL_NOW)


def launch(
    running: Running,
    spec: dict[str, Any],
    output: Callable[[bytes], None],
    listener: int | None = None,
    around: AbstractContextManager[None] | None = None,
) -> None:
    """Run the sandbox program with `spec` (see its docstring) to the end of every process in it.

    `around` is entered when the program is up, which then waits for it, and left when every process has ended.
    Raises CommandFailed with the command's exit code, IsolationError when the sandbox could not be made.
    """
    spec_end, spec_fd = os.pipe()
    report, report_end = os.pipe()
    out, out_end = os.pipe()
    inherited = [spec_end, report_end, *([] if listener is None else [listener])]
    try:
        process = running.start([*_program(), *map(str, inherited)], inherited, out_end)
    except BaseException:
        os.close(spec_fd)
        os.close(report)
        os.close(out)
        raise
    finally:
        os.close(spec_end)
        os.close(report_end)
        os.close(out_end)
    try:
        with ExitStack() as stack, open(report, "rb") as reports:
            try:
                _hand_over(spec, spec_fd, reports, around, stack)
                _copy(out, output)
                process.wait()
                said = reports.read1()
            except BaseException:
                _end(process)
                raise
    finally:
        os.close(out)
        running.forget(process)
    if running.ended and not said:
        raise IsolationError("the build was stopped")
    _judge(said, process.returncode)


def _program() -> list[str]:
    """The start of the command line of the sandbox program; its arguments follow."""
    flags = ["-I", "-S"]
    if sys.dont_write_bytecode:
        flags.append("-B")
    if sys.pycache_prefix:
        flags += ["-X", f"pycache_prefix={sys.pycache_prefix}"]
    return [sys.executable, *flags, "-c", _START, str(Path(__file__).parent)]


def _hand_over(
    spec: dict[str, Any],
    spec_fd: int,
    reports: BinaryIO,
    around: AbstractContextManager[None] | None,
    stack: ExitStack,
) -> None:
    """Give the program its specification, and let it begin once `around` is entered on `stack`."""
    try:
        with open(spec_fd, "wb") as stream:
            stream.write(marshal.dumps({**spec, "wait": around is not None}))
            stream.flush()
            if around is not None and reports.readline() == READY:
                stack.enter_context(around)
                stream.write(GO)  # an end without it, when `around` fails, must not let the command run
    except BrokenPipeError:
        pass  # the sandbox program died; its report or its absence says so


def _copy(out: int, output: Callable[[bytes], None]) -> None:
    while data := os.read(out, 1 << 16):
        output(data)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask it to end; insist after the grace period."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        process.send_signal(KILL_NOW)
        process.wait()


def _judge(said: bytes, returncode: int) -> None:
    if not said:
        raise IsolationError(f"the sandbox ended without a word (status {returncode})")
    kind, _, value = said.decode(errors="replace").partition(" ")
    if kind == "error":
        raise IsolationError(f"the sandbox could not be made: {value}")
    code = int(value)
    if code != 0:
        raise CommandFailed(f"exit code {code}" + _signal_name(code), _hint(code), code=code)


def _hint(code: int) -> str:
    """What shells and kernels mean by `code`, and where to look."""
    match code:
        case 126:
            return "it is there but cannot be executed: its mode, or a program of another machine"
        case 127:
            return "a program was not found: install it in an earlier RUN, or look at PATH"
        case 137:
            return "it was killed from outside, most often for memory: give the pod a higher memory limit"
    return "what it said is in the lines above; to try it by hand, build an earlier stage with --target and run that"


def _signal_name(code: int) -> str:
    try:
        return f" ({signal.Signals(code - 128).name})" if code > 128 else ""
    except ValueError:
        return ""
