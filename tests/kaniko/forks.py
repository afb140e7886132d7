"""A process that has Limpet loaded and forks for each command line: its own start would take longer than most builds.

The child is what `/kaniko/executor` is: the command line, the environment, exit code and streams are its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Done:
    """An executor that has ended."""

    code: int
    out: str
    err: str


class Forks:
    """The process, as tests see it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(self, arguments: Sequence[str], env: Mapping[str, str], directory: Path) -> Done:
        """Run `/kaniko/executor` with `arguments` in `directory`, with this environment only."""
        request = {"arguments": list(arguments), "env": dict(env), "directory": str(directory)}
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        code = int(self._process.stdout.readline())
        out, err = ((directory / name).read_text(errors="replace") for name in (".out", ".err"))
        return Done(code, out, err)


@contextlib.contextmanager
def forks() -> Iterator[Forks]:
    """Start the process; it ends with the context."""
    command = [sys.executable, "-m", "tests.kaniko.forks"]
    with subprocess.Popen(command, cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Forks(process)
        assert process.stdin
        process.stdin.close()


def _serve() -> None:
    import builder.cli.build_command
    import builder.cli.main

    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            code = 70
            try:
                os.chdir(request["directory"])
                for number, name in ((0, os.devnull), (1, ".out"), (2, ".err")):
                    file = os.open(name, os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
                    os.dup2(file, number)
                    os.close(file)
                os.environ.clear()
                os.environ.update(request["env"])
                code = builder.cli.main.main(["executor", *request["arguments"]])
                sys.stdout.flush()
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    _serve()
