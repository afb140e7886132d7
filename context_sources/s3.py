"""`s3://BUCKET/KEY[?versionId=ID]` and `s3://BUCKET/PREFIX/`, by botocore and its chain of credentials."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from botocore import exceptions

from builder.errors import ContextError, UsageError
from context_sources import aws
from context_sources.http_body import CONTENT_RANGE, TRANSIENT_STATUS
from context_sources.objects import DEFAULT_OBJECT, StoredObject, fetch_tree, unpack_archive
from context_sources.retry import Body, Broken, answered
from context_sources.s3_listing import PAGE, take_page
from context_sources.s3_objects import NETWORK, ObjectRequests, chunks_of
from context_sources.source import Fetched, FetchSettings

MISSING = frozenset(("NoSuchKey", "NoSuchBucket", "NoSuchVersion", "404"))


class S3Source:
    """The revision of an archive is its version id in a bucket with versions, else its ETag."""

    def fetch(self, location: str, into: Path, settings: FetchSettings) -> Fetched:
        bucket, key, version = parse(location)
        store = Store(bucket, settings)
        if key.endswith("/"):
            name = f"s3://{bucket}/{key}"
            return fetch_tree(store.listing(key, name), key, store.open_listed, name, into, settings)
        name = f"s3://{bucket}/{key}"
        answer = store.get(key, version, name)
        found = answer.get("VersionId", "")
        revision, kind = (found, "version") if found not in ("", "null") else (answer["ETag"].strip('"'), "etag")
        wanted = {"VersionId": found} if found not in ("", "null") else {"IfMatch": answer["ETag"]}
        again = partial(store.open_at, key, name, wanted)
        return unpack_archive(body_of(answer), again, name, revision, kind, into, settings)


def parse(location: str) -> tuple[str, str, str]:
    """Bucket, key and version id. Without a key it is kaniko's context.tar.gz."""
    bucket, _, key = location.partition("://")[2].partition("/")
    if not bucket:
        raise UsageError(f"--context {location} names no bucket", "use s3://BUCKET/KEY, or s3://BUCKET/PREFIX/")
    key, _, version = key.partition("?versionId=")
    return bucket, key or DEFAULT_OBJECT, unquote(version)


class Store:
    """One bucket."""

    def __init__(self, bucket: str, settings: FetchSettings) -> None:
        self._bucket = bucket
        self._settings = settings
        access = aws.s3_access(settings.environment)
        self._client, self._used = access.client, access.used
        self._objects = ObjectRequests(access)
        self._client.meta.events.register("before-parse.s3.ListObjectsV2", take_page)
        settings.log("debug", f"s3://{bucket}: {self._used}")

    def get(self, key: str, version: str, name: str) -> dict[str, Any]:
        """The whole object as it is now, or a version of it: the answer says which that is."""
        extra = {"VersionId": version} if version else {}
        return answered(partial(self._ask, name, self._client.get_object, Key=key, **extra), name, self._settings)

    def listing(self, prefix: str, name: str) -> Iterator[StoredObject]:
        """Every object whose key begins with `prefix`."""
        token: dict[str, str] = {}
        while True:
            ask = partial(self._ask, name, self._client.list_objects_v2, Prefix=prefix, **token)
            page = answered(ask, name, self._settings).get(PAGE)
            if page is None:
                raise ContextError(f"{name}: the store answers with no list of objects", "check S3_ENDPOINT")
            yield from page.objects
            if not page.following:
                return
            token = {"ContinuationToken": page.following}

    def open_listed(self, stored: StoredObject, offset: int) -> Body:
        body = self._objects.open_at(stored.key, stored.version, offset)
        if body is not None:
            return body
        return self.open_at(stored.key, f"s3://{self._bucket}/{stored.key}", {"IfMatch": stored.version}, offset)

    def open_at(self, key: str, name: str, wanted: dict[str, str], offset: int) -> Body:
        """Raises Broken or ContextError."""
        part = {"Range": f"bytes={offset}-"} if offset else {}
        return body_of(self._ask(name, self._client.get_object, Key=key, **wanted, **part))

    def _ask(self, name: str, call: Any, **parameters: Any) -> dict[str, Any]:
        try:
            answer: dict[str, Any] = call(Bucket=self._bucket, **parameters)
            return answer
        except exceptions.ClientError as error:
            raise self._refused(error, name) from error
        except NETWORK as error:
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                hint = "name the file of its authority's certificate in SSL_CERT_FILE or AWS_CA_BUNDLE"
                raise ContextError(f"{name}: {error}", hint) from error
            raise Broken(f"the connection broke ({type(error).__name__})") from error
        except exceptions.BotoCoreError as error:
            raise ContextError(f"{name}: {error}", "check the AWS_ variables of the environment") from error

    def _refused(self, error: exceptions.ClientError, name: str) -> Exception:
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        code = error.response.get("Error", {}).get("Code", "")
        said = error.response.get("Error", {}).get("Message", "")
        if status in TRANSIENT_STATUS or code in ("SlowDown", "RequestTimeout", "InternalError"):
            return Broken(f"{status} {code}")
        if status == 412:
            return ContextError(f"{name} changed while it was fetched", "start the build again", transient=True)
        if code in MISSING or status == 404:
            what = "no such bucket" if code == "NoSuchBucket" else "no such object"
            return ContextError(f"{name}: {what}; {self._used}", "check the address and S3_ENDPOINT")
        if status in (401, 403):
            return ContextError(
                f"{name}: {status} {code if not code.isdigit() else 'Forbidden'}; {self._used}",
                "allow it s3:GetObject (and s3:ListBucket for a prefix), or set AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or a service account with a role",
            )
        return ContextError(f"{name}: {status} {code} {said}; {self._used}", "check AWS_REGION and S3_ENDPOINT")


def body_of(answer: dict[str, Any]) -> Body:
    """The body of what the client answers to GetObject."""
    stream = answer["Body"]
    total, start = answer["ContentLength"], 0
    if match := CONTENT_RANGE.fullmatch(answer.get("ContentRange", "")):
        start, total = int(match[1]), int(match[2])
    return Body(chunks_of(stream), start, total, answer["ETag"], stream.close)
