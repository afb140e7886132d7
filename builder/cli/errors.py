"""Errors as people read them: one line of fact, the lines of the Dockerfile that are meant, what to do."""

from __future__ import annotations

import errno
import traceback
from collections.abc import Mapping
from dataclasses import dataclass

from builder.errors import EXIT_FAILURE, BuildError, Location

_AROUND = 2  # lines of the Dockerfile shown before and after the ones that are meant
_MOST = 10  # lines shown of one instruction
_OS_HINTS = {
    errno.ENOSPC: "free some space, or give --work-dir a larger volume",
    errno.EDQUOT: "the quota is used up: free some space, or give --work-dir another volume",
    errno.EROFS: "mount that file system read-write, or give another path",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
}


@dataclass(frozen=True, slots=True)
class Failure:
    """An error ready to be shown. `quote` are lines of the Dockerfile, `trace` those of a traceback, if wanted."""

    message: str
    hint: str
    quote: tuple[str, ...]
    trace: tuple[str, ...]
    exit_code: int

    def lines(self) -> list[str]:
        """As text: `error: ...`, the quote, the hint indented by two."""
        return [f"error: {self.message}", *self.quote, *(f"  {line}" for line in self.hint.splitlines()), *self.trace]


def failure_of(error: BaseException, dockerfiles: Mapping[str, str], *, trace: bool) -> Failure:
    """What to show of `error`; `dockerfiles` has the texts that can be quoted, by their paths."""
    if isinstance(error, BaseExceptionGroup):
        error = _first(error)
    lines = tuple("".join(traceback.format_exception(error)).splitlines()) if trace else ()
    if isinstance(error, BuildError):
        location, message = error.location, error.message
        if location and not message.startswith(f"{location.path}:"):
            message = f"{location}: {message}"
        hint = error.hint or _hint_of_cause(error)
        return Failure(message, hint, quote(location, dockerfiles), lines, error.exit_code)
    if isinstance(error, OSError) and error.errno in _OS_HINTS:
        where = f"{error.filename}: " if error.filename else ""
        return Failure(f"{where}{error.strerror}", _OS_HINTS[error.errno], (), lines, EXIT_FAILURE)
    if isinstance(error, MemoryError):
        return Failure("out of memory", "give the container more memory", (), lines, EXIT_FAILURE)
    text = " ".join(str(error).split())
    message = f"internal: {type(error).__name__}" + (f": {text}" if text else "")
    hint = "this is a bug in Limpet" + ("" if trace else "; --verbosity=trace shows where it happened")
    return Failure(message, hint, (), lines, EXIT_FAILURE)


def quote(location: Location | None, dockerfiles: Mapping[str, str]) -> tuple[str, ...]:
    """The lines at `location` marked with `>>>`, and their neighbours, numbered; () when the text is not known."""
    text = dockerfiles.get(location.path) if location else None
    if location is None or text is None:
        return ()
    lines = text.splitlines()
    end = min(location.end, location.start + _MOST - 1)
    first, last = max(1, location.start - _AROUND), min(len(lines), end + _AROUND)
    width = len(str(last))
    quoted = []
    for number in range(first, last + 1):
        mark = ">>>" if location.start <= number <= end else "   "
        quoted.append(f"  {number:{width}} | {mark} {lines[number - 1]}".rstrip())
    return tuple(quoted)


def _hint_of_cause(error: BuildError) -> str:
    cause = error.__cause__
    return _OS_HINTS.get(cause.errno or 0, "") if isinstance(cause, OSError) else ""


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error of several that says most: a BuildError if there is one."""
    flat: list[BaseException] = []
    for error in group.exceptions:
        flat.append(_first(error) if isinstance(error, BaseExceptionGroup) else error)
    return next((error for error in flat if isinstance(error, BuildError)), flat[0])
