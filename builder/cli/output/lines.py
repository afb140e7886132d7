"""A process's output, cut into lines although it comes in arbitrary pieces."""

from __future__ import annotations

from collections.abc import Iterator

_LONGEST = 64 * 1024  # bytes; a line without an end is shown in pieces rather than kept


class LineSplitter:
    """Cuts at newlines. Of a line that overwrites itself with carriage returns, the last state is the line."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[str]:
        """The lines that `data` completes."""
        *complete, self._rest = (self._rest + data).split(b"\n")
        for line in complete:
            yield _text(line)
        while len(self._rest) > _LONGEST:
            piece, self._rest = self._rest[:_LONGEST], self._rest[_LONGEST:]
            yield _text(piece)

    def close(self) -> Iterator[str]:
        """The last line, if it did not end."""
        rest, self._rest = self._rest, b""
        if rest:
            yield _text(rest)


def _text(line: bytes) -> str:
    return line.rstrip(b"\r").rpartition(b"\r")[2].decode(errors="replace")
