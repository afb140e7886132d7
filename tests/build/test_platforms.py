"""Several platforms in one build: an index, stages that all of them share, and programs of another machine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from builder.isolation.emulation import program_of, runs_programs_of
from builder.oci.platform import Platform
from tests.build.busybox import PROGRAM
from tests.build.program import CHECKOUT, Builder
from tests.servers.registry import RegistryServer

BOTH = "--platform=linux/amd64,linux/arm64"
FOREIGN = "arm64" if Platform.host().architecture != "arm64" else "amd64"


def _raw(registry: RegistryServer, reference: str, *flags: str) -> Any:
    command = ["skopeo", "inspect", "--raw", "--tls-verify=false", *flags, f"docker://{registry.host}/{reference}"]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


def _config(registry: RegistryServer, reference: str, architecture: str) -> Any:
    command = ["skopeo", f"--override-arch={architecture}", "inspect", "--config", "--tls-verify=false"]
    command.append(f"docker://{registry.host}/{reference}")
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


def test_an_index_under_every_destination(limpet: Builder, registry: RegistryServer, tmp_path: Path) -> None:
    limpet.dockerfile("FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /arch\n", amd64="one", arm64="two")
    names = [f"{registry.host}/{name}" for name in ("platforms/a:1", "platforms/a:2", "platforms/b:1")]
    done = limpet(
        BOTH,
        *(f"--destination={name}" for name in names),
        f"--oci-layout-path={tmp_path / 'layout'}",
        f"--digest-file={tmp_path / 'digest'}",
        f"--image-name-tag-with-digest-file={tmp_path / 'names'}",
        f"--results-dir={tmp_path / 'results'}",
        f"--metadata-file={tmp_path / 'metadata'}",
    )
    assert done.returncode == 0, done.stderr
    digest = (tmp_path / "digest").read_text()
    assert (tmp_path / "results/IMAGE_DIGEST").read_text() == digest
    assert (tmp_path / "names").read_text() == "".join(f"{name}@{digest}\n" for name in names)
    metadata = json.loads((tmp_path / "metadata").read_text())
    assert metadata["containerimage.digest"] == digest
    members = {str(Platform.parse(name)): each for name, each in metadata["platforms"].items()}
    assert members == {
        f"linux/{entry['platform']['architecture']}": entry["digest"]
        for entry in _raw(registry, "platforms/a:1")["manifests"]
    }
    assert json.loads((tmp_path / "layout/index.json").read_text())["manifests"][0]["digest"] == digest
    for name in ("platforms/a:1", "platforms/a:2", "platforms/b:1", f"platforms/a@{digest}"):
        index = _raw(registry, name)
        assert index["mediaType"] == "application/vnd.oci.image.index.v1+json"
        assert [entry["platform"]["architecture"] for entry in index["manifests"]] == ["amd64", "arm64"]
        for architecture in ("amd64", "arm64"):
            assert _config(registry, name, architecture)["architecture"] == architecture
    assert len({json.dumps(_config(registry, "platforms/a:1", arch)["rootfs"]) for arch in ("amd64", "arm64")}) == 2
    for name in ("platforms/a", "platforms/b"):
        assert f"Pushed {registry.host}/{name}@{digest}" in done.stderr


def test_a_layout_of_several_platforms_is_pushed_as_it_is(
    limpet: Builder, registry: RegistryServer, tmp_path: Path
) -> None:
    limpet.dockerfile("FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /arch\n", amd64="one", arm64="two")
    layout, digest = tmp_path / "layout", tmp_path / "digest"
    done = limpet(BOTH, "--no-push", f"--oci-layout-path={layout}", f"--digest-file={digest}")
    assert done.returncode == 0, done.stderr
    pushed = tmp_path / "pushed"
    flags = [f"--destination={registry.host}/platforms/pushed:1", f"--digest-file={pushed}", str(layout)]
    command = [sys.executable, "-m", "builder", "push", *flags]
    subprocess.run(command, cwd=CHECKOUT, env=limpet.environment(), check=True, capture_output=True)
    assert pushed.read_text() == digest.read_text()
    for architecture in ("amd64", "arm64"):
        assert _config(registry, "platforms/pushed:1", architecture)["architecture"] == architecture


def test_bases_are_chosen_by_platform(limpet: Builder, registry: RegistryServer) -> None:
    limpet.dockerfile("FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /arch\nENV A=$TARGETARCH\n", amd64="x", arm64="y")
    base = f"{registry.host}/platforms/base:1"
    assert limpet(BOTH, f"--destination={base}", "--image-format=docker").returncode == 0
    limpet.dockerfile(f"FROM {base} AS one\nFROM {base}\nCOPY --from=one /arch /copied\n")
    done = limpet(BOTH, f"--destination={registry.host}/platforms/derived:1")
    assert done.returncode == 0, done.stderr
    # The base is a list of Docker's, so what is built on it is one.
    index = _raw(registry, "platforms/derived:1")
    assert index["mediaType"] == "application/vnd.docker.distribution.manifest.list.v2+json"
    for architecture in ("amd64", "arm64"):
        assert f"A={architecture}" in _config(registry, "platforms/derived:1", architecture)["config"]["Env"]


def test_a_stage_for_the_build_platform_runs_once(limpet: Builder, registry: RegistryServer) -> None:
    limpet.dockerfile("""\
FROM --platform=$BUILDPLATFORM base AS shared
RUN echo said once > /made; echo said once

FROM --platform=$BUILDPLATFORM base AS cross
ARG TARGETARCH
RUN echo said for $TARGETARCH; echo $TARGETARCH > /made

FROM scratch
COPY --from=shared /made /shared
COPY --from=cross /made /cross
""")
    done = limpet(BOTH, f"--destination={registry.host}/platforms/cross:1")
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stderr.splitlines() if "said" in line and "echo" not in line]
    assert len(said) == 3, said
    assert {architecture for architecture in ("amd64", "arm64") for line in said if architecture in line} == {
        "amd64",
        "arm64",
    }


def test_what_is_cached_is_cached_for_its_platform(limpet: Builder, registry: RegistryServer, tmp_path: Path) -> None:
    limpet.dockerfile("""\
FROM --platform=$BUILDPLATFORM base AS shared
RUN echo made > /made
FROM --platform=$BUILDPLATFORM base AS cross
ARG TARGETARCH
RUN echo $TARGETARCH > /arch
FROM scratch
COPY --from=shared /made /made
COPY --from=cross /arch /arch
""")
    flags = [BOTH, "--cache", "--cache-copy-layers", f"--cache-repo=oci:{tmp_path / 'cache'}", "--reproducible"]
    digests = []
    for _ in range(2):
        digest = tmp_path / "digest"
        done = limpet(*flags, f"--destination={registry.host}/platforms/cached:1", f"--digest-file={digest}")
        assert done.returncode == 0, done.stderr
        digests.append(digest.read_text())
    assert digests[0] == digests[1]
    assert "No cached layer found" not in done.stderr
    assert done.stderr.count("Using caching version of cmd: COPY --from=cross /arch /arch") == 2


def test_run_for_another_machine_is_refused_before_anything_runs(limpet: Builder) -> None:
    foreign = Platform("linux", FOREIGN)
    if runs_programs_of(foreign, limpet.directory):
        pytest.skip(f"programs of {FOREIGN} run here")
    limpet.dockerfile("FROM scratch\nENV A=1\n")
    layout = limpet.directory / "foreign"
    assert limpet(f"--platform={foreign}", "--no-push", f"--oci-layout-path={layout}").returncode == 0
    limpet.dockerfile(
        "FROM base AS first\nRUN echo first ran\n\nFROM foreign AS second\nRUN true\nCOPY --from=first / /\n"
    )
    log = limpet.fails(f"--platform={foreign}", "--no-push", f"--build-context=foreign=oci-layout://{layout}")
    assert f"error: Dockerfile:5: stage second is for linux/{FOREIGN}, whose programs do not run on this machine" in log
    assert "binfmt_misc" in log
    assert "first ran" not in log.replace("RUN echo first ran", "")
    # Without RUN there is nothing to emulate.
    limpet.dockerfile("FROM foreign\nWORKDIR /a\nCOPY Dockerfile /b/\n")
    done = limpet(f"--platform={foreign}", "--no-push", f"--build-context=foreign=oci-layout://{layout}")
    assert done.returncode == 0, done.stderr


def test_several_platforms_do_not_fit_into_an_archive(limpet: Builder, tmp_path: Path) -> None:
    limpet.dockerfile("FROM scratch\nENV A=1\n")
    log = limpet.fails(BOTH, "--no-push", f"--tar-path={tmp_path / 'a.tar'}")
    assert "--oci-layout-path" in log


def test_an_error_of_one_platform_fails_the_build(limpet: Builder, registry: RegistryServer) -> None:
    limpet.dockerfile("FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /\n", amd64="only this")
    log = limpet.fails(BOTH, f"--destination={registry.host}/platforms/half:1")
    assert "Dockerfile:3:" in log
    assert "arm64" in log


def test_plans(limpet: Builder) -> None:
    limpet.dockerfile("FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /\n")
    for extra in ((), ("--format=json",)):
        command = limpet.command(BOTH, "--no-push", *extra)
        command.insert(command.index("builder") + 1, "plan")
        printed = subprocess.run(
            command, cwd=CHECKOUT, env=limpet.environment(), check=True, capture_output=True
        ).stdout
        if extra:
            plans = json.loads(printed)["platforms"]
            assert plans["linux/arm64"]["stages"][0]["steps"][1]["sources"] == ["arm64"]
        else:
            assert [line for line in printed.decode().splitlines() if line.startswith("platform")] == [
                "platform linux/amd64",
                "platform linux/arm64",
            ]


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="binfmt_misc is mounted by root only")
def test_run_for_another_machine_with_an_emulator(limpet: Builder, tmp_path: Path) -> None:
    """The emulator is a shell that says so and succeeds, registered in a user namespace of its own (Linux 6.7)."""
    foreign = tmp_path / "foreign"
    foreign.write_bytes(program_of(FOREIGN))
    foreign.chmod(0o755)
    emulator = tmp_path / "echo"
    shutil.copy(PROGRAM, emulator)
    limpet.dockerfile('FROM foreign\nCOPY program /program\nRUN ["/program", "emulated"]\n')
    shutil.copy(foreign, limpet.context / "program")
    layout = limpet.directory / "layout"
    # Made with the same Dockerfile's first line only: a base for the foreign platform.
    (limpet.context / "base.Dockerfile").write_text("FROM scratch\nCOPY program /there\n")
    made = limpet(
        f"--platform=linux/{FOREIGN}", "--dockerfile=base.Dockerfile", "--no-push", f"--oci-layout-path={layout}"
    )
    assert made.returncode == 0, made.stderr
    magic = "".join(f"\\x{byte:02x}" for byte in program_of(FOREIGN)[:20])
    rule = f":limpet:M::{magic}::{emulator}:F"
    registry = "/proc/sys/fs/binfmt_misc"
    script = f'mount -t binfmt_misc none {registry} && printf %s "$0" >{registry}/register && exec "$@"'
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, rule]
    flags = [f"--platform=linux/{FOREIGN}", "--no-push", f"--build-context=foreign=oci-layout://{layout}"]
    done = subprocess.run(
        [*command, *limpet.command(*flags)], cwd=CHECKOUT, env=limpet.environment(), text=True, capture_output=True
    )
    if "binfmt_misc" in done.stderr and "unknown filesystem" in done.stderr:
        pytest.skip("this kernel has no binfmt_misc in user namespaces")
    assert done.returncode == 0, done.stderr
    assert "/program emulated" in done.stderr
