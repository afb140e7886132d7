"""`limpet`, `python -m builder`, `/kaniko/executor` and `/kaniko/warmer`: from argv to an exit code.

Exit codes: 0; 1 for an error; RUN's own code for a failed RUN; 75 when the same build may work later;
128+n when signal n ended it.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Mapping, Sequence
from typing import cast

from builder import __version__
from builder.cli.arguments import Arguments, find_command, parse
from builder.cli.commands import COMMANDS, EXECUTOR
from builder.cli.errors import failure_of
from builder.cli.flags import flags_of
from builder.cli.output import Output
from builder.cli.settings import LogFormat, LogSettings, log_settings
from builder.cli.signals import Interrupted, ending_signals_raise
from builder.errors import EXIT_FAILURE, BuildError, UsageError


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (without the program's name; default: this process's). Returns the exit code."""
    program = os.path.basename(sys.argv[0]) if argv is None else "limpet"
    words = list(sys.argv[1:] if argv is None else argv)
    program = program if program in ("executor", "warmer") else "limpet"
    if program == "limpet" and words[:1] in (["executor"], ["warmer"]):
        program = words.pop(0)
    try:
        with ending_signals_raise():
            code = _main(program, words, os.environ)
            sys.stdout.flush()
            return code
    except Interrupted as signal:
        if signal.abandoned:
            sys.stderr.flush()
            os._exit(signal.exit_code)
        return signal.exit_code
    except BrokenPipeError:
        # Whoever read the answer has enough; without this the interpreter complains once more when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILURE


def _main(program: str, words: list[str], env: Mapping[str, str]) -> int:
    try:
        name, rest = _command(program, words)
        if name and name not in COMMANDS:
            from builder.cli.help import group_help

            print(group_help(name))
            return 0
        shown = program if name in ("build", "warm") and program != "limpet" else f"{program} {name}"
        arguments = parse(name, rest, env, program=shown) if name else None
        if arguments is None or arguments.help:
            from builder.cli.help import command_help, overview

            print(command_help(name, shown) if name else overview())
            return 0
        _check_operands(arguments, program)
    except BuildError as error:
        with _early_output(words) as output:
            return _fail(output, error)
    return _run(arguments, env)


def _run(arguments: Arguments, env: Mapping[str, str]) -> int:
    with Output(log_settings(arguments, terminal=_is_terminal(env))) as output:
        try:
            for notice in arguments.notices:
                output.say(notice, "warning")
            command = COMMANDS[arguments.command]
            if command.announces:
                output.say(f"Limpet {__version__}")
            carry_out = command.load()
            gc.freeze()  # what was loaded stays: it is not looked through again and again
            gc.enable()  # builder.__main__ has put it off until all modules are there
            return carry_out(arguments, env, output)
        except Interrupted as signal:
            left = "the work directory may be left behind" if signal.abandoned else "everything was cleaned up"
            output.say(f"ended by signal {signal.number}; {left}", "error")
            raise
        except BrokenPipeError:
            raise
        except Exception as error:
            return _fail(output, error)


def _fail(output: Output, error: Exception) -> int:
    failure = failure_of(error, output.dockerfiles, trace=output.settings.level == "trace")
    output.fail(failure)
    return failure.exit_code


def _command(program: str, words: list[str]) -> tuple[str, list[str]]:
    """The command's name and its arguments: flags may stand before the name.

    The name is "" for the overview, and a group's (`cache`) for the help of all its commands.
    """
    if program == "warmer":
        return "warm", words
    names = EXECUTOR if program == "executor" else tuple(COMMANDS)
    if words[:1] == ["help"]:
        words = [*words[1:], "--help"]
        if words == ["--help"]:
            return ("", []) if program == "limpet" else ("build", words)
    firsts = {name.partition(" ")[0]: name for name in names}
    position = find_command(words, tuple(firsts), flags_of("build"))
    if position is None:
        wants_overview = program == "limpet" and (not words or words in (["--help"], ["-h"]))
        return ("" if wants_overview else "build"), words
    first = words.pop(position)
    if first in names:
        return first, words
    second = words.pop(position) if position < len(words) else ""
    if second in ("--help", "-h"):
        return first, words
    name = f"{first} {second}"
    if name not in names:
        choices = [other.partition(" ")[2] for other in names if other.startswith(first + " ")]
        raise UsageError(f"{program} {name.strip()}: no such command", f"write {program} {first} {'|'.join(choices)}")
    return name, words


def _check_operands(arguments: Arguments, program: str) -> None:
    command = COMMANDS[arguments.command]
    if not arguments.positionals or command.operands:
        return
    import difflib  # costs milliseconds, and is needed for a mistake only

    word = arguments.positionals[0]
    close = difflib.get_close_matches(word, COMMANDS, n=1) if program == "limpet" else []
    hint = f"did you mean `limpet {close[0]}`?" if close else f"see `{program} --help`"
    if word.lower() in ("true", "false", "1", "0", "t", "f"):
        hint = f"a flag that is true or false takes its value with `=`: --flag={word}"
    raise UsageError(f'unknown command "{word}" for "{program}"', hint)


def _is_terminal(env: Mapping[str, str]) -> bool:
    """Whether the log goes to a terminal that can move its cursor."""
    return sys.stderr.isatty() and env.get("TERM", "") not in ("", "dumb")


def _early_output(words: Sequence[str]) -> Output:
    """Somewhere to report that the command line itself is wrong: JSON when it seems to be asked for."""
    log_format = "json" if "--log-format=json" in words else "plain"
    return Output(LogSettings(format=cast(LogFormat, log_format)))
