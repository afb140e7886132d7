"""How an instruction is shown: on one line, as it was written."""

from __future__ import annotations

import re


def one_line(code: str) -> str:
    """`code` with line ends and blanks in a row as one blank; heredoc bodies are not part of it."""
    return re.sub(r"[\s]+", " ", code).strip()
