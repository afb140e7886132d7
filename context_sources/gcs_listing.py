"""Answers of the JSON API about objects (https://cloud.google.com/storage/docs/json_api/v1/objects)."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from context_sources.objects import StoredObject

PAGE = 1000  # objects, the most that Google lists at once
FIELDS = "items(name,size,updated,generation),nextPageToken"  # of 1.5 KB that the store says of an object
LARGEST_ANSWER = 64 << 20  # bytes; a page of Google's has less than 7 MB, since names have at most 1,024


class NotTheApi(Exception):
    """The answer of a server that does not speak the protocol, or wants too much memory."""


def read_generation(chunks: Iterable[bytes]) -> str:
    """The generation of the object that is described. Raises NotTheApi."""
    answer = _read(chunks)
    try:
        return _number(answer["generation"])
    except (KeyError, ValueError) as error:
        raise NotTheApi("no generation") from error


def read_page(chunks: Iterable[bytes]) -> tuple[list[StoredObject], str]:
    """The objects of one page, and the token of the next, "" after the last. Raises NotTheApi."""
    answer = _read(chunks)
    try:
        token = answer.get("nextPageToken", "")
        if not isinstance(token, str):
            raise TypeError("a page's token that is no text")
        return [_object_of(item) for item in answer.get("items") or ()], token
    except (KeyError, ValueError, TypeError) as error:
        raise NotTheApi(f"an object without a name, size, time or generation that can be read: {error}") from error


def _read(chunks: Iterable[bytes]) -> dict[str, Any]:
    text = bytearray()
    for chunk in chunks:
        text += chunk
        if len(text) > LARGEST_ANSWER:
            raise NotTheApi(f"more than {LARGEST_ANSWER >> 20} MiB")
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise NotTheApi("no JSON") from error
    if not isinstance(answer, dict):
        raise NotTheApi("JSON of another kind")
    return answer


def _object_of(item: dict[str, Any]) -> StoredObject:
    name, changed = item["name"], item.get("updated")
    if not isinstance(name, str):
        raise TypeError("a name that is no text")
    name.encode()  # JSON can say halves of a character, which no file's name has
    mtime = int(datetime.fromisoformat(changed).timestamp()) * 10**9 if changed else 0
    return StoredObject(name, int(_number(item.get("size", "0"))), mtime, _number(item["generation"]))


def _number(value: object) -> str:
    """64-bit numbers are text in Google's JSON."""
    text = str(value)
    if not text.isascii() or not text.isdigit():
        raise ValueError(f"{text[:40]!r} is no number")
    return text
