"""Pages of listings beside what botocore's own parser makes of them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote_plus
from xml.sax.saxutils import escape

import botocore.parsers
import botocore.session
import pytest
from hypothesis import given
from hypothesis import strategies as st

from context_sources.objects import StoredObject
from context_sources.s3_listing import PAGE, read_page, take_page

NAMESPACE = ' xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
# What XML can carry; S3 is asked to quote keys for the sake of all others.
KEYS = st.text(st.characters(min_codepoint=32, exclude_categories=["Cs", "Cn"]), min_size=1)
TIMES = st.datetimes(datetime(1970, 1, 2), datetime(2100, 1, 1), timezones=st.just(UTC))
OBJECTS = st.lists(st.tuples(KEYS, st.integers(0, 1 << 43), TIMES, KEYS), max_size=4)


@pytest.fixture(scope="module")
def shape() -> Any:
    return botocore.session.Session().get_service_model("s3").operation_model("ListObjectsV2").output_shape


def document(objects: Any, token: str, quoted: bool, namespace: str) -> bytes:
    def key_text(key: str) -> str:
        return quote_plus(key, safe="/") if quoted else escape(key)

    contents = "".join(
        f"<Contents><Key>{key_text(key)}</Key><LastModified>{time.isoformat(timespec='milliseconds')[:-6]}Z"
        f"</LastModified><ETag>{escape(etag)}</ETag><Size>{size}</Size>"
        "<StorageClass>STANDARD</StorageClass><Owner><ID>me</ID></Owner></Contents>"
        for key, size, time, etag in objects
    )
    following = f"<NextContinuationToken>{escape(token)}</NextContinuationToken>" if token else ""
    encoding = "<EncodingType>url</EncodingType>" if quoted else ""
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<ListBucketResult{namespace}><Name>b</Name>'
        f"<Prefix>a+b</Prefix><KeyCount>{len(objects)}</KeyCount>{encoding}"
        f"<IsTruncated>{'true' if token else 'false'}</IsTruncated>{following}{contents}</ListBucketResult>"
    ).encode()


@given(OBJECTS, st.just("") | KEYS, st.booleans(), st.sampled_from(["", NAMESPACE]))
def test_a_page_is_what_botocore_reads(shape: Any, objects: Any, token: str, quoted: bool, namespace: str) -> None:
    body = document(objects, token, quoted, namespace)
    answer = {"status_code": 200, "headers": {}, "body": body}
    parsed = botocore.parsers.create_parser("rest-xml").parse(answer, shape)
    page = read_page(body)
    assert page is not None
    assert [(found.size, found.mtime, found.version) for found in page.objects] == [
        (item["Size"], int(item["LastModified"].timestamp()) * 10**9, item["ETag"])
        for item in parsed.get("Contents", [])
    ]
    assert [found.key for found in page.objects] == [key for key, *_ in objects]
    assert page.following == parsed.get("NextContinuationToken", "") == token


def test_what_is_no_page_is_left_to_botocore() -> None:
    error = b"<Error><Code>InternalError</Code></Error>"
    for status, body in ((200, error), (403, document([], "", False, "")), (200, b"<html>"), (200, b"")):
        answer: dict[str, Any] = {"status_code": status, "body": body}
        taken: dict[str, Any] = {}
        take_page(answer, taken)
        assert (answer, taken) == ({"status_code": status, "body": body}, {})


def test_a_page_is_taken_from_the_parser() -> None:
    moment = datetime(2024, 1, 31, 12, 0, 0, 999000, UTC)
    answer = {"status_code": 200, "body": document([("a b+c", 7, moment, '"e"')], "", True, NAMESPACE)}
    taken: dict[str, Any] = {}
    take_page(answer, taken)
    assert taken[PAGE].objects == [StoredObject("a b+c", 7, int(moment.timestamp()) * 10**9, '"e"')]
    assert len(answer["body"]) < 30
