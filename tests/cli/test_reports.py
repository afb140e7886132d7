"""`--reports-dir`: the SBOM against what other programs find, the provenance against what went in."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Limpet
from tests.servers.registry import docker_registry, missing

STATUS = """\
Package: libexample1
Status: install ok installed
Maintainer: Some One <one@example.com>
Architecture: amd64
Version: 1:2.0+dfsg-3
Description: a library
 with a description of

Package: gone
Status: deinstall ok config-files
Architecture: all
Version: 1.0
"""
OVERWRITTEN = STATUS.replace("libexample1", "older")
INSTALLED = (
    "C:Q1\nP:musl\nV:1.2.5-r0\nA:x86_64\nL:MIT\nm:Who <who@example.com>\nF:lib\n\nP:odd\nV:1\nL:custom (see file)\n\n"
)


def build(limpet: Limpet, tmp_path: Path, files: dict[str, str], dockerfile: str, *flags: str) -> dict[str, Any]:
    context = tmp_path / "context"
    for name, text in {**files, "Dockerfile": dockerfile}.items():
        (context / name).parent.mkdir(parents=True, exist_ok=True)
        (context / name).write_text(text)
    reports = tmp_path / "reports"
    flags = flags or ("--no-push",)
    done = limpet(f"--context={context}", "--isolation=none", f"--reports-dir={reports}", "--cache-dir=/none", *flags)
    assert done.returncode == 0, done.stderr
    found = {path.name: json.loads(path.read_text()) for path in reports.iterdir()}
    return {**found, "log": done.stderr}


def packages(sbom: dict[str, Any]) -> dict[str, tuple[str, str]]:
    return {
        each["name"]: (each["versionInfo"], each["externalRefs"][0]["referenceLocator"])
        for each in sbom["packages"]
        if "externalRefs" in each
    }


def test_packages_of_every_kind(limpet: Limpet, tmp_path: Path) -> None:
    """The databases of the highest layer count, links in paths are followed, what is not read is told."""
    files = {
        "older": OVERWRITTEN,
        "status": STATUS,
        "installed": INSTALLED,
        "METADATA": "Metadata-Version: 2.1\nName: Some_Package\nVersion: 3.0\n\nName: not this\n",
        "os-release": 'ID=debian\nVERSION_ID="12"\n',
    }
    dockerfile = (
        "FROM scratch\nCOPY older /var/lib/dpkg/status\nCOPY status /var/lib/dpkg/status\n"
        "COPY installed /lib/apk/db/\nCOPY METADATA /usr/lib/python3/dist-packages/some.dist-info/\n"
        "COPY os-release /usr/lib/\nCOPY older /usr/lib/sysimage/rpm/rpmdb.sqlite\n"
    )
    made = build(limpet, tmp_path, files, dockerfile)
    assert packages(made["sbom.spdx.json"]) == {
        "libexample1": ("1:2.0+dfsg-3", "pkg:deb/debian/libexample1@1%3A2.0%2Bdfsg-3?arch=amd64&distro=debian-12"),
        "musl": ("1.2.5-r0", "pkg:apk/debian/musl@1.2.5-r0?arch=x86_64&distro=debian-12"),
        "odd": ("1", "pkg:apk/debian/odd@1?distro=debian-12"),
        "Some_Package": ("3.0", "pkg:pypi/some-package@3.0"),
    }
    licenses = {each["name"]: each.get("licenseDeclared") for each in made["sbom.spdx.json"]["packages"]}
    assert (licenses["musl"], licenses["odd"]) == ("MIT", "NOASSERTION")
    assert "/usr/lib/sysimage/rpm/rpmdb.sqlite" in made["sbom.spdx.json"]["comment"]
    assert "lacks the packages of /usr/lib/sysimage/rpm/rpmdb.sqlite" in made["log"]


def test_identifiers_are_unique_and_related(limpet: Limpet, tmp_path: Path) -> None:
    sbom = build(limpet, tmp_path, {"status": STATUS}, "FROM scratch\nCOPY status /var/lib/dpkg/status\n")[
        "sbom.spdx.json"
    ]
    names = [each["SPDXID"] for each in sbom["packages"]]
    assert len(set(names)) == len(names) == 2
    assert {each["relatedSpdxElement"] for each in sbom["relationships"]} == set(names)
    assert sbom["spdxVersion"] == "SPDX-2.3" and sbom["creationInfo"]["created"].endswith("Z")


@pytest.mark.skipif(not shutil.which("dpkg-query"), reason="dpkg-query is not installed")
def test_debian_is_what_dpkg_says(limpet: Limpet, tmp_path: Path) -> None:
    """This machine's own database."""
    status = Path("/var/lib/dpkg/status").read_text()
    sbom = build(limpet, tmp_path, {"status": status}, "FROM scratch\nCOPY status /var/lib/dpkg/status\n")
    argv = ["dpkg-query", "--show", "--showformat=${db:Status-Status} ${Package} ${Version}\\n"]
    lines = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()
    installed = {line.partition(" ")[2] for line in lines if line.startswith("installed ")}
    found = {f"{name} {version}" for name, (version, _) in packages(sbom["sbom.spdx.json"]).items()}
    assert found == installed and len(found) > 50


@pytest.mark.skipif(bool(missing()), reason="docker-registry is not installed")
def test_provenance_names_what_went_in(limpet: Limpet, tmp_path: Path) -> None:
    with docker_registry(tmp_path / "registry") as server:
        base = f"{server.host}/base"
        build(limpet, tmp_path, {}, "FROM scratch\nENV A=b\n", f"--destination={base}:1")
        digest = tmp_path / "digest"
        flags = (f"--destination={server.host}/app:1", f"--digest-file={digest}", "--build-arg=TOKEN=hidden-value")
        made = build(limpet, tmp_path, {"file": ""}, f"FROM {base}:1\nARG TOKEN\nCOPY file /\n", *flags)
    statement = made["provenance.json"]
    value = digest.read_text().partition(":")[2]
    assert statement["subject"] == [{"name": f"{server.host}/app", "digest": {"sha256": value}}]
    definition = statement["predicate"]["buildDefinition"]
    (dependency,) = definition["resolvedDependencies"]
    assert dependency["uri"] == f"docker://{base}@sha256:{dependency['digest']['sha256']}"
    assert definition["externalParameters"]["buildArgNames"] == ["TOKEN"]
    assert "hidden-value" not in json.dumps(statement)
    assert made["sbom.spdx.json"]["packages"][0]["checksums"][0]["checksumValue"] == value


def test_a_directory_that_cannot_be_made_is_told(limpet: Limpet, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\nENV A=b\n")
    done = limpet(f"--context={tmp_path}", "--isolation=none", "--no-push", "--reports-dir=/proc/none")
    assert done.returncode == 1
    assert "--reports-dir: cannot write /proc/none" in done.stderr
