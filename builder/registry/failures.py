"""What went wrong with a registry, in the words of errors that people meet."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from http import HTTPStatus
from typing import TYPE_CHECKING

import urllib3

from builder.errors import RegistryError
from builder.registry.credentials.credential import Lookup

if TYPE_CHECKING:
    from builder.registry.connections import Response

# Asking again does not help; other 5xx, 408, 429 and nginx's 499 may pass.
_LASTING_SERVER_ERRORS = (501, 505)
_IMMUTABLE = (
    "the repository has enabled tag immutability",  # Google Artifact Registry
    "cannot be overwritten because the tag is immutable",  # Amazon ECR
    "configured as immutable",  # Harbor
)
# OpenSSL's words for an answer that is no TLS; "" and the end of the stream say nothing either way.
_NOT_TLS = (
    "",
    "WRONG_VERSION_NUMBER",
    "RECORD_LAYER_FAILURE",
    "HTTP_REQUEST",
    "UNKNOWN_PROTOCOL",
    "PACKET_LENGTH_TOO_LONG",
    "UNEXPECTED_EOF_WHILE_READING",
)
_BODY_LIMIT = 64 << 10


def is_transient(status: int) -> bool:
    """Whether a later request may be answered otherwise."""
    return status in (408, 429, 499) or (status >= 500 and status not in _LASTING_SERVER_ERRORS)


def is_silence(error: Exception) -> bool:
    """Whether a request or a transfer failed because nothing came in time."""
    return any(map(_is_timeout, _causes(error)))


def is_immutable_tag_error(error: RegistryError) -> bool:
    """Whether a push failed only because the tag exists and may not be moved."""
    return any(words in error.message.lower() for words in _IMMUTABLE)


def is_missing_blob_error(error: RegistryError) -> bool:
    """Whether a manifest was refused because the registry does not find a blob that it names."""
    text = error.message.lower()
    return error.status in (400, 404) and ("manifest_blob_unknown" in text or "blob unknown to registry" in text)


def refused(response: Response, where: str, what: str, lookup: Lookup | None = None) -> RegistryError:
    """The error of an answer that is not the one hoped for. Reads the body and closes the response.

    `where` names the repository or host, `what` continues "while ...".
    """
    status = response.status_code
    code, detail = _described(response)
    text = f"{where}: {status} {code} while {what}" + (f": {detail}" if detail else "")
    return RegistryError(text, _hint(status, lookup), status=status, transient=is_transient(status))


def unreachable(error: Exception, host: str, where: str, what: str) -> RegistryError:
    """The error of a request that got no answer."""
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return RegistryError(
                f"{where}: the certificate of {host} is not trusted while {what}: {cause.verify_message}",
                f"give its authority with --registry-certificate={host}=CA.pem, or accept any certificate with "
                f"--skip-tls-verify-registry={host}",
            )
        if isinstance(cause, ssl.SSLError):
            return _tls_error(cause, host, where, what)
    reason = next((str(cause.strerror) for cause in causes if isinstance(cause, OSError) and cause.strerror), "")
    if any(isinstance(cause, urllib3.exceptions.ProxyError) for cause in causes):
        reason = f"the proxy does not connect: {reason or 'it refused'}"
    elif is_silence(error):
        reason = "no answer in time"
    return RegistryError(
        f"{where}: cannot reach {host} while {what}: {reason or 'the connection broke'}",
        "check the name, the network and HTTP_PROXY, HTTPS_PROXY, NO_PROXY",
        transient=True,
    )


def speaks_tls(error: Exception) -> bool:
    """Whether a failed request shows that the other side speaks TLS, though not with us."""
    reasons = [cause.reason or "" for cause in _causes(error) if isinstance(cause, ssl.SSLError)]
    return any(reason not in _NOT_TLS for reason in reasons)


def _is_timeout(cause: BaseException) -> bool:
    """urllib3 counts among its timeouts every connection that cannot be made."""
    if isinstance(cause, urllib3.exceptions.NewConnectionError):
        return False
    return isinstance(cause, urllib3.exceptions.TimeoutError | TimeoutError)


def _tls_error(error: ssl.SSLError, host: str, where: str, what: str) -> RegistryError:
    reason = (error.reason or "").upper()
    if reason in _NOT_TLS:
        return RegistryError(
            f"{where}: {host} does not speak TLS while {what}",
            f"if it is meant to be plain HTTP, say --insecure-registry={host}",
        )
    if "CERTIFICATE_REQUIRED" in reason or "HANDSHAKE_FAILURE" in reason or "BAD_CERTIFICATE" in reason:
        return RegistryError(
            f"{where}: {host} refuses the TLS connection while {what}: {error.reason}",
            f"if it asks for a client certificate, give it with --registry-client-cert={host}=CERT,KEY",
        )
    return RegistryError(
        f"{where}: TLS with {host} failed while {what}: {error.reason or error}",
        "check the registry's TLS set-up",
        transient=True,
    )


def _described(response: Response) -> tuple[str, str]:
    """The registry's error code, or HTTP's phrase for the status, and what it says about it."""
    try:
        body = response.raw.read(_BODY_LIMIT, decode_content=True)
    except (urllib3.exceptions.HTTPError, OSError):  # the status is what counts; a body that breaks off adds nothing
        body = b""
    finally:
        response.close()
    try:
        errors = json.loads(body)["errors"]
        code = str(errors[0].get("code") or "")
        detail = "; ".join(filter(None, (str(error.get("message") or "") for error in errors)))
    except (ValueError, LookupError, TypeError, AttributeError):
        code, detail = "", ""
        if response.headers.get("Content-Type", "").startswith("text/plain"):
            detail = " ".join(body.decode("utf-8", "replace").split())[:300]
    if not code:
        try:
            code = HTTPStatus(response.status_code).phrase
        except ValueError:
            code = "unknown status"
    return code, detail


def _hint(status: int, lookup: Lookup | None) -> str:
    if status in (401, 403) and lookup is not None:
        if lookup.credential is None:
            return f"no credential for {lookup.repository}; looked in {lookup.places}"
        return f"the {lookup.credential.kind} from {lookup.credential.origin} does not allow it"
    if status == 404:
        return (
            "check the name; some registries answer so when a credential is missing, and some (ECR) have a repository "
            "only when it was created before"
        )
    if status == 429:
        return "the registry limits how often it may be asked; a credential usually raises the limit"
    return "the registry failed; try again later" if is_transient(status) else ""


def _causes(error: BaseException) -> Iterator[BaseException]:
    """`error` and what it wraps: urllib3 keeps causes in `args`, `reason` and `__cause__`."""
    seen: set[int] = set()
    queue: list[BaseException] = [error]
    while queue:
        current = queue.pop(0)
        if id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        inner = [*current.args, getattr(current, "reason", None), current.__cause__, current.__context__]
        queue += [item for item in inner if isinstance(item, BaseException)]
