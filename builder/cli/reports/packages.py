"""Which packages an image has, as its package databases say: dpkg's, apk's, and those of Python distributions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from builder.layer.index import read_index
from builder.layer.opened import opened
from builder.oci.image import Image
from builder.oci.media_types import layer_compression
from builder.rootfs.entry import Entry, FileType
from builder.rootfs.layered import LayeredTree

_OS_RELEASE = ("etc/os-release", "usr/lib/os-release")
_DPKG = re.compile(r"var/lib/dpkg/(status|status\.d/[^/]+)")  # status.d: images without dpkg itself
_APK = re.compile(r"(usr/)?lib/apk/db/installed")
_PYTHON = re.compile(r".*/(site|dist)-packages/[^/]+\.(dist-info/METADATA|egg-info/PKG-INFO)")
_UNREAD = re.compile(r"(var/lib|usr/lib/sysimage)/rpm/(rpmdb\.sqlite|Packages|Packages\.db)")


@dataclass(frozen=True, slots=True, order=True)
class Package:
    """`purl` is its package URL (purl-spec), `supplier` who packaged it, "" when the database does not say."""

    name: str
    version: str
    purl: str
    license: str = ""
    supplier: str = ""


@dataclass(frozen=True, slots=True)
class Packages:
    """What was found; `unread` are databases of kinds that are not read."""

    packages: tuple[Package, ...]
    unread: tuple[str, ...] = ()


def find_packages(image: Image, work_dir: Path) -> Packages:
    """Read every layer once. Raises ImageError for a damaged layer, RegistryError when one cannot be fetched."""
    tree, kept = LayeredTree(), set()
    for layer in image.layers:
        with opened(layer) as stream:
            changes = read_index(
                stream,
                compression=layer_compression(layer.descriptor.media_type),
                diff_id=layer.diff_id,
                spool=work_dir,
                wanted=_is_database,
            )
        kept |= {change.path for change in changes if _is_database(change.path)}
        tree = tree.apply(changes)
    texts = {path: text for path in sorted(kept) if (text := _text(tree.entry(path))) is not None}
    distribution = _distribution(next((texts[path] for path in _OS_RELEASE if path in texts), ""))
    found: set[Package] = set()
    for path, text in texts.items():
        if _DPKG.fullmatch(path):
            found |= set(_of_dpkg(text, *distribution))
        elif _APK.fullmatch(path):
            found |= set(_of_apk(text, *distribution))
        elif _PYTHON.fullmatch(path):
            found |= set(_of_python(text))
    unread = [path for path in sorted(kept) if _UNREAD.fullmatch(path) and tree.entry(path)]
    return Packages(tuple(sorted(found)), tuple(unread))


def _is_database(path: str) -> bool:
    return path in _OS_RELEASE or any(kind.fullmatch(path) for kind in (_DPKG, _APK, _PYTHON, _UNREAD))


def _text(entry: Entry | None) -> str | None:
    if entry is None or entry.type is not FileType.FILE or entry.content is None or _UNREAD.fullmatch(entry.path):
        return None
    with entry.content.open() as stream:
        return stream.read().decode("utf-8", "replace")


def _distribution(os_release: str) -> tuple[str, str]:
    """ID and VERSION_ID of os-release(5)."""
    values = dict(re.findall(r"^([A-Z_]+)=[\"']?([^\"'\n]*)", os_release, re.M))
    return values.get("ID", "linux"), values.get("VERSION_ID", "")


def _stanzas(text: str, separator: str) -> Iterator[dict[str, str]]:
    """Paragraphs of `Name: value` lines; lines that continue a value are left out."""
    for stanza in re.split(r"\n\s*\n", text):
        yield dict(re.findall(rf"^([A-Za-z-]+){separator}[ ]*(.*)$", stanza, re.M))


def _of_dpkg(text: str, distribution: str, release: str) -> Iterator[Package]:
    for stanza in _stanzas(text, ":"):
        if "Package" not in stanza or "Version" not in stanza:
            continue
        if not stanza.get("Status", "install ok installed").endswith(" installed"):
            continue  # removed, its configuration is left
        name, version = stanza["Package"], stanza["Version"]
        qualifiers = {"arch": stanza.get("Architecture", ""), "distro": _distro(distribution, release)}
        yield Package(
            name, version, _purl("deb", distribution, name, version, qualifiers), "", stanza.get("Maintainer", "")
        )


def _of_apk(text: str, distribution: str, release: str) -> Iterator[Package]:
    for stanza in _stanzas(text, ":"):
        if "P" in stanza and "V" in stanza:
            name, version = stanza["P"], stanza["V"]
            qualifiers = {"arch": stanza.get("A", ""), "distro": _distro(distribution, release)}
            purl = _purl("apk", distribution, name, version, qualifiers)
            yield Package(name, version, purl, stanza.get("L", ""), stanza.get("m", ""))


def _of_python(text: str) -> Iterator[Package]:
    head = next(_stanzas(text, ":"), {})
    if "Name" in head and "Version" in head:
        normal = re.sub(r"[-_.]+", "-", head["Name"]).lower()
        yield Package(head["Name"], head["Version"], _purl("pypi", "", normal, head["Version"], {}))


def _distro(distribution: str, release: str) -> str:
    return f"{distribution}-{release}" if release else ""


def _purl(kind: str, namespace: str, name: str, version: str, qualifiers: dict[str, str]) -> str:
    path = "/".join(quote(part, safe="") for part in (namespace, name) if part)
    query = "&".join(f"{key}={quote(value, safe='')}" for key, value in sorted(qualifiers.items()) if value)
    return f"pkg:{kind}/{path}@{quote(version, safe='')}" + (f"?{query}" if query else "")
