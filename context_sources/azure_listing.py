"""The XML of List Blobs (https://learn.microsoft.com/rest/api/storageservices/list-blobs), read while it arrives."""

from __future__ import annotations

from collections.abc import Iterable
from email.utils import parsedate_to_datetime
from urllib.parse import unquote
from xml.parsers import expat

from context_sources.objects import StoredObject

LARGEST_PAGE = 64 << 20  # bytes: 5,000 blobs, whose names have at most 1,024 characters
# Elements that are read, by how deep they lie: EnumerationResults/Blobs/Blob/Properties/Etag and the like.
FIELDS = {"Name": 4, "Content-Length": 5, "Last-Modified": 5, "Etag": 5, "ResourceType": 5, "NextMarker": 2}


class NotAListing(Exception):
    """The answer of a server that does not speak the protocol, or wants too much memory."""


def read_page(chunks: Iterable[bytes]) -> tuple[list[StoredObject], str]:
    """The blobs of one page, and the marker of the next, "" after the last. Raises NotAListing.

    A document type is refused: entities, which can grow beyond all bounds or name files, are declared nowhere else.
    """
    page = _Page()
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = _refuse
    parser.StartElementHandler, parser.EndElementHandler = page.start, page.end
    parser.CharacterDataHandler = page.characters
    size = 0
    try:
        for chunk in chunks:
            size += len(chunk)
            if size > LARGEST_PAGE:
                raise NotAListing(f"a page of more than {LARGEST_PAGE >> 20} MiB")
            parser.Parse(chunk, False)
        parser.Parse(b"", True)
    except expat.ExpatError as error:
        raise NotAListing(f"no XML: {error}") from error
    except (KeyError, ValueError, TypeError) as error:
        raise NotAListing(f"a blob without a name, size, time or ETag that can be read: {error}") from error
    return page.blobs, page.marker


def _refuse(*_: object) -> None:
    raise NotAListing("XML with a document type")


class _Page:
    """Takes expat's events; all else that a listing says of a blob is passed over."""

    def __init__(self) -> None:
        self.blobs: list[StoredObject] = []
        self.marker = ""
        self._depth = 0
        self._encoded = False
        self._text: list[str] | None = None  # of the field that is being read
        self._blob: dict[str, str] = {}

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        if self._depth == 1 and name != "EnumerationResults":
            raise NotAListing(f"XML of another kind: {name}")
        if FIELDS.get(name) == self._depth:
            self._text = []
            if name == "Name":  # characters that XML does not know are percent-encoded
                self._encoded = attributes.get("Encoded") == "true"

    def characters(self, text: str) -> None:
        if self._text is not None:
            self._text.append(text)

    def end(self, name: str) -> None:
        if self._text is not None and FIELDS.get(name) == self._depth:
            text, self._text = "".join(self._text), None
            if name == "NextMarker":
                self.marker = text
            else:
                self._blob[name] = unquote(text) if name == "Name" and self._encoded else text
        elif name == "Blob" and self._depth == 3:
            self.blobs.append(_object_of(self._blob))
            self._blob = {}
        self._depth -= 1


def _object_of(blob: dict[str, str]) -> StoredObject:
    """Accounts with a hierarchical namespace list directories, too."""
    size, changed = int(blob["Content-Length"]), int(parsedate_to_datetime(blob["Last-Modified"]).timestamp())
    name = blob["Name"] + ("/" if blob.get("ResourceType") == "directory" else "")
    if size < 0:
        raise ValueError(f"{size} bytes")
    return StoredObject(name, size, changed * 10**9, blob["Etag"])
