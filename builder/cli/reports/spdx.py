"""A software bill of materials in SPDX 2.3's JSON form (spdx.github.io/spdx-spec/v2.3)."""

from __future__ import annotations

import re
from typing import Any

from builder import __version__
from builder.cli.reports.packages import Package, Packages
from builder.oci.image import Image

_EPOCH = "1970-01-01T00:00:00Z"
# An SPDX licence expression's form; what else stands in a package database is free text.
_EXPRESSION = re.compile(r"[A-Za-z0-9.+-]+( (AND|OR|WITH) [A-Za-z0-9.+-]+)*")


def document(name: str, image: Image, found: Packages) -> dict[str, Any]:
    """The document of one image; the same image gives the same document."""
    digest = image.manifest()[0].digest.partition(":")[2]
    subject = {
        "SPDXID": "SPDXRef-image",
        "name": name,
        "versionInfo": f"sha256:{digest}",
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": False,
        "primaryPackagePurpose": "CONTAINER",
        "checksums": [{"algorithm": "SHA256", "checksumValue": digest}],
    }
    packages = [_package(number, package) for number, package in enumerate(found.packages)]
    relations = [("SPDXRef-DOCUMENT", "DESCRIBES", "SPDXRef-image")]
    relations += [("SPDXRef-image", "CONTAINS", package["SPDXID"]) for package in packages]
    value = {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": name,
        "documentNamespace": f"https://spdx.org/spdxdocs/limpet-{digest}",
        "creationInfo": {"created": _created(image), "creators": [f"Tool: limpet-{__version__}"]},
        "packages": [subject, *packages],
        "relationships": [
            {"spdxElementId": element, "relationshipType": kind, "relatedSpdxElement": other}
            for element, kind, other in relations
        ],
    }
    if found.unread:
        value["comment"] = "Not read, so their packages are missing: " + ", ".join(f"/{path}" for path in found.unread)
    return value


def _package(number: int, package: Package) -> dict[str, Any]:
    return {
        "SPDXID": f"SPDXRef-package-{number}",
        "name": package.name,
        "versionInfo": package.version,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": False,
        "licenseDeclared": package.license if _EXPRESSION.fullmatch(package.license) else "NOASSERTION",
        "supplier": f"Organization: {package.supplier}" if package.supplier else "NOASSERTION",
        "externalRefs": [
            {"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": package.purl}
        ],
    }


def _created(image: Image) -> str:
    """To the second, which is what SPDX allows."""
    created = image.config.created or _EPOCH
    return re.sub(r"\.\d+", "", created)
