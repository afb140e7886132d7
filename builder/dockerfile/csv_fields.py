"""One line of comma-separated fields, as in `--mount=type=bind,"source=a,b"`."""

from __future__ import annotations


def split_csv(text: str) -> list[str]:
    """The fields of `text`. A field in double quotes may hold commas, and `""` for a quote.

    Raises ValueError for an empty text, a quote inside an unquoted field, text behind a closing quote, or none.
    """
    if not text:
        raise ValueError("it is empty")
    fields: list[str] = []
    at = 0
    while True:
        field, at = _quoted(text, at) if text.startswith('"', at) else _plain(text, at)
        fields.append(field)
        if at >= len(text):
            return fields
        at += 1  # the comma


def _plain(text: str, at: int) -> tuple[str, int]:
    end = text.find(",", at)
    end = len(text) if end < 0 else end
    field = text[at:end]
    if '"' in field:
        raise ValueError('bare " in a field that is not quoted')
    return field, end


def _quoted(text: str, at: int) -> tuple[str, int]:
    parts: list[str] = []
    at += 1
    while True:
        end = text.find('"', at)
        if end < 0:
            raise ValueError('missing closing "')
        parts.append(text[at:end])
        at = end + 1
        if text.startswith('"', at):
            parts.append('"')
            at += 1
        elif at == len(text) or text[at] == ",":
            return "".join(parts), at
        else:
            raise ValueError('text behind a closing "')
