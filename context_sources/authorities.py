"""One file of everybody who is trusted, for programs and libraries that read a file and no directory."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Mapping
from pathlib import Path

import certifi

from context_sources.http_environment import ca_bundle

_CERTIFICATE = re.compile(r"-----BEGIN (?:TRUSTED )?CERTIFICATE-----.+?-----END (?:TRUSTED )?CERTIFICATE-----", re.S)


def in_one_file(environment: Mapping[str, str], file: Path) -> Mapping[str, str]:
    """`environment` with SSL_CERT_FILE naming `file`, which then has what SSL_CERT_DIR has besides.

    git and boto3 take a bundle; a directory only if its files are named by their hashes. Without certificates
    in SSL_CERT_DIR, a list of directories whose files are all read, nothing is written and nothing changes. Raises
    UsageError when the environment names a bundle that is not there.
    """
    more = [text for path in environment.get("SSL_CERT_DIR", "").split(":") if path for text in _certificates(path)]
    if not more:
        return environment
    bundle = ca_bundle(environment) or ssl.get_default_verify_paths().cafile or certifi.where()
    texts = [Path(bundle).read_text(encoding="utf-8", errors="replace"), *dict.fromkeys(more)]
    file.write_text("\n".join(texts) + "\n", encoding="utf-8")
    return {**environment, "SSL_CERT_FILE": str(file)}


def _certificates(directory: str) -> list[str]:
    """Those of every readable file: such directories also hold keys, revocation lists and notes."""
    found: list[str] = []
    for name in sorted(os.listdir(directory)) if os.path.isdir(directory) else ():
        path = Path(directory, name)
        if path.is_file() and os.access(path, os.R_OK):
            found += _CERTIFICATE.findall(path.read_text(encoding="utf-8", errors="replace"))
    return found
