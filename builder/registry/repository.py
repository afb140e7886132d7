"""One repository of a registry: manifests, blobs and tags (OCI distribution-spec)."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from urllib.parse import quote, urljoin

from builder.errors import ImageError, RegistryError
from builder.oci import media_types
from builder.oci.descriptor import Descriptor, is_digest
from builder.oci.verified import digest_of
from builder.registry.connections import Response
from builder.registry.transport import Transport, read_body, read_json

MANIFEST_LIMIT = 4 << 20  # bytes; what registries accept at most
_ACCEPT = ", ".join((*media_types.INDEXES, *media_types.MANIFESTS))
_NEXT = re.compile(r'<([^>]*)>\s*;\s*rel="?next"?')
_TAG_PAGES = 10_000


@dataclass(frozen=True, slots=True)
class Repository:
    """`name` in the registry that `transport` speaks with. All methods raise RegistryError."""

    transport: Transport
    name: str
    actions: str = ""  # what tokens must allow, "" for what the direction needs

    def for_actions(self, actions: str) -> Repository:
        """The same repository, asked for with tokens that allow `actions`."""
        return replace(self, actions=actions)

    def __str__(self) -> str:
        return f"{self.transport.registry}/{self.name}"

    def get_manifest(self, identifier: str) -> tuple[Descriptor, bytes]:
        """Manifest or index of a tag or digest. The descriptor's media type is what the registry calls it.

        Raises ImageError when the bytes are not those of the digest.
        """
        what = f"fetching the manifest of {identifier}"
        data, response = self._get(f"manifests/{identifier}", what, MANIFEST_LIMIT, {"Accept": _ACCEPT})
        wanted = identifier if is_digest(identifier) else response.headers.get("Docker-Content-Digest", "")
        algorithm = wanted.partition(":")[0] if is_digest(wanted) else "sha256"
        digest = digest_of(data, algorithm)
        if is_digest(wanted) and digest != wanted:
            raise ImageError(f"{self}: the manifest {wanted} does not match its digest: its bytes have {digest}")
        return Descriptor(response.headers.get("Content-Type", ""), digest, len(data)), data

    def head_manifest(self, identifier: str, retries: int | None = None) -> Descriptor | None:
        """What a tag or digest is now, None when it is not there. The digest is "" where the registry does not say."""
        response = self.send(
            "HEAD",
            f"manifests/{identifier}",
            what=f"looking for {identifier}",
            expected=(200, 404),
            headers={"Accept": _ACCEPT},
            retries=retries,
        )
        response.close()
        if response.status_code == 404:
            return None
        headers = response.headers
        length = headers.get("Content-Length", "")
        return Descriptor(
            headers.get("Content-Type", ""),
            headers.get("Docker-Content-Digest", ""),
            int(length) if length.isdigit() else 0,
        )

    def put_manifest(self, identifier: str, descriptor: Descriptor, data: bytes) -> None:
        """Publish `data` under a tag or its digest."""
        self.send(
            "PUT",
            f"manifests/{identifier}",
            what=f"writing the manifest of {identifier}",
            expected=(200, 201, 202, 204),
            headers={"Content-Type": descriptor.media_type},
            body=data,
            read_timeout=self.transport.settings.commit_timeout,
        ).close()

    def delete_manifest(self, digest: str) -> None:
        """Remove a manifest and the tags that point to it."""
        self.send(
            "DELETE",
            f"manifests/{digest}",
            actions="delete",
            what=f"deleting the manifest {digest}",
            expected=(200, 202, 204),
        ).close()

    def tags(self) -> tuple[str, ...]:
        """All tags, in the registry's order."""
        found: list[str] = []
        path = f"/v2/{self.name}/tags/list"
        for _ in range(_TAG_PAGES):
            response = self.send("GET", path, what="listing tags", expected=(200,))
            url, link = response.url, _NEXT.search(response.headers.get("Link", ""))
            value = read_json(response, MANIFEST_LIMIT, str(self))
            tags = value.get("tags") if isinstance(value, dict) else None
            found += map(str, tags or ())
            if not link:
                break
            path = urljoin(url, link[1])
        return tuple(found)

    def has_blob(self, digest: str) -> bool:
        """Whether the repository has a blob."""
        response = self.send("HEAD", f"blobs/{digest}", what=f"looking for {digest}", expected=(200, 404))
        response.close()
        return response.status_code == 200

    def get_blob(self, descriptor: Descriptor, offset: int = 0) -> Response:
        """The answer to a GET of a blob from `offset` (bytes) on: 206, or 200 from a registry without ranges."""
        return self.send(
            "GET",
            f"blobs/{descriptor.digest}",
            what=f"fetching {descriptor.digest}",
            expected=(200, 206) if offset else (200,),
            # A coding that the registry applies by itself would change the bytes.
            headers={"Accept-Encoding": "identity", **({"Range": f"bytes={offset}-"} if offset else {})},
        )

    def check_push(self) -> None:
        """Find out whether pushing is allowed, by starting an upload and dropping it."""
        response = self.send("POST", "blobs/uploads/", what="starting an upload", expected=(202,))
        response.close()
        location = response.headers.get("Location")
        if location:
            self.cancel_upload(urljoin(response.url, location))

    def cancel_upload(self, url: str) -> None:
        """Tell the registry that an upload will not go on. Never fails: registries forget uploads by themselves."""
        try:
            self.send("DELETE", url, what="cancelling an upload", expected=range(600), retries=0).close()
        except RegistryError:
            pass

    def send(
        self,
        method: str,
        path: str,
        *,
        what: str,
        expected: Collection[int],
        actions: str = "",
        also_pull: str = "",
        headers: Mapping[str, str] | None = None,
        body: bytes | Iterable[bytes] | None = None,
        retries: int | None = None,
        read_timeout: float | None = None,
    ) -> Response:
        """Transport.send for this repository. `path` is below it, absolute, or a URL.

        `actions` is what the token must allow, by default what the repository says; `also_pull` names another
        repository to read from.
        """
        if not path.startswith("/") and "://" not in path:
            head, _, last = path.rpartition("/")
            path = f"/v2/{self.name}/{head}/{quote(last, safe=':?=&%')}"
        actions = actions or self.actions or ("pull,push" if self.transport.direction == "push" else "pull")
        scopes = [f"repository:{self.name}:{actions}"]
        if also_pull:
            scopes.append(f"repository:{also_pull}:pull")
        return self.transport.send(
            method,
            path,
            repository=self.name,
            scopes=scopes,
            what=what,
            expected=expected,
            headers=headers,
            body=body,
            retries=retries,
            read_timeout=read_timeout,
        )

    def _get(self, path: str, what: str, limit: int, headers: Mapping[str, str]) -> tuple[bytes, Response]:
        """A whole small answer, asked for again when it breaks off."""
        for attempt in range(self.transport.settings.retries + 1):
            response = self.send("GET", path, what=what, expected=(200,), headers=headers)
            try:
                return read_body(response, limit, str(self)), response
            except RegistryError as error:
                if not error.transient or attempt == self.transport.settings.retries:
                    raise
                self.transport.exchange.pause(attempt)
        raise AssertionError("unreachable")
