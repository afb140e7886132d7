"""Keeping credentials out of what is shown: locations without their secrets, log lines without known secrets."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from urllib.parse import quote, unquote, urlsplit

from builder.urls import without_user
from context_sources.schemes import PATH_SCHEMES
from context_sources.source import Level

SECRET_NAME = re.compile(r"TOKEN|PASSWORD|SECRET|ACCESS_KEY|CONNECTION_STRING|_SAS|CREDENTIAL|API_KEY", re.IGNORECASE)
SHORTEST_SECRET = 6  # replacing shorter strings would mangle every other line
MASK = "***"


def without_userinfo(location: str) -> str:
    """`location` without user, password, query and fragment. What is no URL is returned as it is."""
    return re.split("[?#]", without_user(location))[0] if "://" in location else location


def secrets_of(location: str, environment: Mapping[str, str]) -> frozenset[str]:
    """Every string that must not be shown: of the URL's user, password and query, and of the environment.

    `location` is a path or a URL that urllib can read.
    """
    found = {value for name, value in environment.items() if SECRET_NAME.search(name) and not value.startswith("/")}
    for value in tuple(found):
        found.update(
            part for part in re.split(r"[;&]", value) if re.match(r"(?i)(AccountKey|SharedAccessSignature)=", part)
        )
    found |= {value.partition("=")[2] for value in found if value.startswith(("AccountKey=", "SharedAccessSignature="))}
    scheme, separator, _ = location.partition("://")
    if separator and scheme.lower() not in PATH_SCHEMES:
        parts = urlsplit(location)
        user, _, password = parts.netloc.rpartition("@")[0].partition(":")
        found.add(password or ("" if parts.scheme.endswith("ssh") else user))
        found.update(match.group(1) for match in re.finditer(r"(?i)(?:sig|signature|token|key)=([^&]+)", parts.query))
    found |= {unquote(value) for value in found} | {quote(value, safe="") for value in found}
    return frozenset(value for value in found if len(value) >= SHORTEST_SECRET)


def redact(text: str, secrets: frozenset[str]) -> str:
    """`text` with every one of `secrets` replaced."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, MASK)
    return text


def redacting(log: Callable[[Level, str], None], secrets: frozenset[str]) -> Callable[[Level, str], None]:
    """`log`, to which no line with one of `secrets` comes."""

    def tell(level: Level, text: str) -> None:
        log(level, redact(text, secrets))

    return tell
