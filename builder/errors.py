"""Every error that a user can meet.

    BuildError                 one line of fact; `hint` says what to do next
    ├── UsageError             the command line or the environment contradicts itself
    ├── DockerfileError        the text of the Dockerfile is wrong; carries path and line
    ├── ContextError           the build context cannot be had
    ├── RegistryError          a registry answered no, or did not answer
    ├── ImageError             an image, a layer or an archive is not what it claims to be
    ├── IsolationError         RUN has no place to happen in this pod
    └── CommandFailed          a RUN step exited non-zero; its exit code becomes Limpet's

Errors of libraries are translated where the library is called; only `builder.cli` prints.
"""

from __future__ import annotations

from dataclasses import dataclass

EXIT_FAILURE = 1
EXIT_TRY_AGAIN = 75  # EX_TEMPFAIL of sysexits.h: the same build may work later


@dataclass(frozen=True, slots=True)
class Location:
    """Lines `start`..`end` (1-based, inclusive) of the Dockerfile called `path`."""

    path: str
    start: int
    end: int

    def __str__(self) -> str:
        return f"{self.path}:{self.start}"


class BuildError(Exception):
    """Something that the user must hear: `message` is the fact, `hint` what to do next.

    `location` is the instruction that was being carried out, None when it was none in particular.
    """

    location: Location | None = None

    def __init__(self, message: str, hint: str = "", *, transient: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.transient = transient

    @property
    def exit_code(self) -> int:
        """What the process exits with: 75 when trying again may help, else 1."""
        return EXIT_TRY_AGAIN if self.transient else EXIT_FAILURE


class UsageError(BuildError):
    """The command line or the environment asks for something impossible or contradictory."""


class DockerfileError(BuildError):
    """The Dockerfile is wrong at `location` (None when the whole file is meant)."""

    def __init__(self, message: str, hint: str = "", *, location: Location | None = None) -> None:
        super().__init__(message, hint)
        self.location = location


class ContextError(BuildError):
    """The build context could not be fetched, read or unpacked."""


class RegistryError(BuildError):
    """A registry refused or failed; `status` is the HTTP status of its last answer, 0 if there was none."""

    def __init__(self, message: str, hint: str = "", *, status: int = 0, transient: bool = False) -> None:
        super().__init__(message, hint, transient=transient)
        self.status = status


class ImageError(BuildError):
    """Content is not what its descriptor or its format says."""


class IsolationError(BuildError):
    """No isolation can carry out RUN here, or the chosen one failed."""


class CommandFailed(BuildError):
    """A RUN step ended with `code` (1..255)."""

    def __init__(self, message: str, hint: str = "", *, code: int, location: Location | None = None) -> None:
        super().__init__(message, hint)
        self.code = code
        self.location = location

    @property
    def exit_code(self) -> int:
        return self.code
