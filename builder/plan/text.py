"""How an instruction is shown: on one line, as it was written."""

from __future__ import annotations

import re


def one_line(code: str) -> str:
    """`code` with line ends and blanks in a row as one blank, what is not UTF-8 as U+FFFD; no heredoc bodies."""
    return printable(re.sub(r"\s+", " ", code).strip())


def printable(text: str) -> str:
    """`text` with U+FFFD for each byte that was not UTF-8."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
