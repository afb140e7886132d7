"""The project's own signatures beside those of botocore's signer."""

from __future__ import annotations

from urllib.parse import quote

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials
from hypothesis import given
from hypothesis import strategies as st

from context_sources.s3_objects import host_of
from context_sources.s3_signing import Signer

NAMES = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1)
VALUES = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1)
URLS = st.sampled_from(
    [
        "https://bucket.s3.eu-west-1.amazonaws.com",
        "https://s3.example.com:443/bucket",
        "http://Store.example:80/a/bucket",
        "http://127.0.0.1:8333/bucket",
        "https://[::1]:9000/bucket",
    ]
)


@given(
    url=URLS,
    key=st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
    headers=st.fixed_dictionaries({"if-match": VALUES}, optional={"range": VALUES}),
    credentials=st.builds(ReadOnlyCredentials, NAMES, NAMES, st.none() | NAMES),
    region=st.sampled_from(["us-east-1", "eu-west-1", "garage"]),
)
def test_signatures_are_those_of_botocore(
    url: str, key: str, headers: dict[str, str], credentials: ReadOnlyCredentials, region: str
) -> None:
    quoted = quote(key, safe="/~")
    request = AWSRequest("GET", f"{url}/{quoted}", headers)
    S3SigV4Auth(credentials, "s3", region).add_auth(request)
    wanted = {name.lower(): value for name, value in request.headers.items()}
    signer = Signer(host_of(url), region)
    path = "/" + f"{url}/{quoted}".split("/", 3)[3]
    for _ in range(2):  # the second time with the key that was kept
        signed = signer.headers(path, headers, credentials, wanted["x-amz-date"])
        found = {name.lower(): value for name, value in signed.items()}
        assert found == {"host": host_of(url), **wanted}


def test_the_kept_key_is_for_one_day_and_one_secret() -> None:
    signer = Signer("s3.example.com", "us-east-1")
    first, second = ReadOnlyCredentials("id", "one", None), ReadOnlyCredentials("id", "two", None)
    asked = [(first, "20240131T000000Z"), (first, "20240201T000000Z"), (second, "20240201T000000Z")]
    kept = [signer.headers("/b/k", {}, key, moment)["Authorization"] for key, moment in asked]
    anew = [Signer("s3.example.com", "us-east-1").headers("/b/k", {}, *one)["Authorization"] for one in asked]
    assert kept == anew
    assert len(set(kept)) == len(kept)


def test_a_signer_shows_no_secret() -> None:
    signer = Signer("s3.example.com", "us-east-1")
    signer.headers("/b/k", {}, ReadOnlyCredentials("id", "secret-0123", None))
    assert "secret-0123" not in repr(signer)
