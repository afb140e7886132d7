"""Whatever is wrong: one clear error, nothing pushed, nothing left behind.

Every build here goes through Builder.fails, which looks for files, mounts and processes that are left.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from builder.layer.index import read_index
from builder.oci import layout
from builder.oci.media_types import layer_compression
from builder.oci.platform import Platform
from tests.build import busybox
from tests.build.program import Builder, assert_one_error, tags
from tests.images import noise
from tests.servers.front import Corrupt, CutRequest, front
from tests.servers.registry import RegistryServer, docker_registry

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount a small file system")


@pytest.mark.parametrize(
    ("dockerfile", "said"),
    [
        ("FROM base\nRUNN true\n", ("Dockerfile:2: ", "RUNN", "RUN", "2 | >>> RUNN true")),
        ("FROM base\nCOPY onlyone\n", ("Dockerfile:2: ", "COPY")),
        ("RUN true\n", ("Dockerfile:1: ", "FROM")),
        ("FROM base\nRUN <<END\ntrue\n", ("Dockerfile:2: ", "END")),
        ("FROM base\nCOPY --from=nobody=x / /\n", ("Dockerfile:2: ", "nobody=x")),
        ("", ("Dockerfile", "empty")),
    ],
)
def test_a_dockerfile_that_does_not_parse(
    limpet: Builder, registry: RegistryServer, dockerfile: str, said: tuple[str, ...]
) -> None:
    limpet.dockerfile(dockerfile)
    log = limpet.fails(f"--destination={registry.host}/parse:1")
    for text in said:
        assert text in log
    assert tags(registry.host, "parse") == []


def test_an_unknown_flag(limpet: Builder) -> None:
    limpet.dockerfile("FROM base\n")
    log = limpet.fails("--no-push", "--destinatoin=x")
    assert "--destinatoin" in log
    assert "--destination" in log.replace("--destinatoin", "")


def test_a_missing_source(limpet: Builder, registry: RegistryServer) -> None:
    limpet.dockerfile("FROM base\nCOPY present absent /x/\n", present="")
    log = limpet.fails(f"--destination={registry.host}/source:1")
    assert "Dockerfile:2: " in log
    assert "absent" in log.split("error: ")[1].splitlines()[0]
    assert "2 | >>> COPY present absent /x/" in log
    assert tags(registry.host, "source") == []


def test_no_dockerfile(limpet: Builder) -> None:
    log = limpet.fails("--no-push")
    assert "Dockerfile" in log
    assert "--dockerfile" in log


def test_a_context_that_is_not_there(limpet: Builder) -> None:
    missing = limpet.directory / "nowhere"
    log = limpet.fails(f"--context={missing}", "--no-push")
    assert str(missing) in log
    assert "--context" in log


@pytest.mark.parametrize("reference", ["nobody/nothing:1", "there:2", f"there@sha256:{'0' * 64}"])
def test_a_base_image_that_does_not_exist(limpet: Builder, registry: RegistryServer, reference: str) -> None:
    limpet.dockerfile("FROM base\n")
    assert limpet(f"--destination={registry.host}/there:1").returncode == 0
    limpet.dockerfile(f"FROM {registry.host}/{reference}\n")
    log = limpet.fails(f"--destination={registry.host}/derived:1")
    assert f"{registry.host}/{reference}" in log
    assert "error: Dockerfile:1: " in log
    assert tags(registry.host, "derived") == []


def test_a_stage_that_is_not_there(limpet: Builder, registry: RegistryServer) -> None:
    limpet.dockerfile("FROM base AS build\nRUN true\nFROM scratch\nCOPY --from=biuld /bin/busybox /\n")
    log = limpet.fails("--no-push", f"--registry-map=docker.io={registry.host}", "--skip-default-registry-fallback")
    assert "error: Dockerfile:4: " in log
    assert "no stage and no --build-context is called biuld" in log


@pytest.mark.parametrize("pull", [False, True], ids=["push", "pull"])
def test_wrong_credentials(limpet: Builder, tmp_path: Path, pull: bool) -> None:
    with docker_registry(tmp_path / "closed", users={"alice": "right-password"}) as closed:
        config = {"auths": {closed.host: {"auth": base64.b64encode(b"alice:wrong-password").decode()}}}
        (tmp_path / "config.json").write_text(json.dumps(config))
        limpet.dockerfile(f"FROM {closed.host}/a:1\n" if pull else "FROM base\nRUN echo never > /run-was-run\n")
        where = "--no-push" if pull else f"--destination={closed.host}/app:1"
        log = limpet.fails(where, "--verbosity=debug", env={"DOCKER_CONFIG": str(tmp_path)})
        assert f"{closed.host}/{'a' if pull else 'app'}" in log
        assert "401" in log or "credential" in log
        assert "wrong-password" not in log
        assert config["auths"][closed.host]["auth"] not in log
        assert not (closed.storage / "docker/registry/v2/repositories").exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 6 MiB; the base image needs 2."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(disk)], check=True)
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.root
@needs_root
class TestFullDisk:
    @pytest.mark.parametrize(
        "dockerfile", ["FROM scratch\nCOPY big /\n", "FROM base\nRUN true\nCOPY big /\n"], ids=["layer", "root"]
    )
    def test_a_copy_does_not_fit(
        self, limpet: Builder, registry: RegistryServer, small_disk: Path, dockerfile: str
    ) -> None:
        limpet.dockerfile(dockerfile, big=noise(8 << 20))
        log = replace(limpet, work=small_disk).fails(f"--destination={registry.host}/full-copy:1")
        self._assert_said(log)
        if "RUN" in dockerfile:  # without a root the layer is written while other steps go on
            assert "error: Dockerfile:3: " in log
        assert tags(registry.host, "full-copy") == []

    def test_a_base_does_not_fit(self, limpet: Builder, tmp_path: Path, small_disk: Path) -> None:
        busybox.write_layout(tmp_path / "large", busybox.tar(("big", noise(8 << 20))))
        limpet.dockerfile("FROM large\nRUN true\n")
        large = f"--build-context=large=oci-layout://{tmp_path}/large"
        self._assert_said(replace(limpet, work=small_disk).fails("--no-push", large))

    def test_a_command_fills_it(self, limpet: Builder, registry: RegistryServer, small_disk: Path) -> None:
        limpet.dockerfile("FROM base\nRUN cat /dev/zero > /fill\n")
        log = replace(limpet, work=small_disk).fails(f"--destination={registry.host}/full-run:1")
        assert "No space left on device" in log
        assert "error: Dockerfile:2: " in log
        assert tags(registry.host, "full-run") == []

    @pytest.mark.parametrize("flag", ["--tar-path", "--oci-layout-path"])
    def test_the_output_does_not_fit(self, limpet: Builder, small_disk: Path, flag: str) -> None:
        limpet.dockerfile("FROM scratch\nCOPY big /\n", big=noise(8 << 20))
        log = limpet.fails("--no-push", "--destination=x.test/a:1", f"{flag}={small_disk}/output")
        assert "No space left on device" in log
        assert f"{small_disk}/output" in log.split("error: ")[1]
        assert [path for path in small_disk.rglob("*") if path.is_file()] == []

    def _assert_said(self, log: str) -> None:
        assert "no space left" in log.split("error: ")[1].lower()
        assert "--work-dir" in log


class TestARegistryThatDies:
    def test_while_the_build_goes_on(self, limpet: Builder, tmp_path: Path) -> None:
        limpet.dockerfile("FROM base\nRUN echo is running; sleep 1; echo end > /end\n")
        with docker_registry(tmp_path / "mortal") as mortal:
            process = limpet.start(f"--destination={mortal.host}/app:1", "--isolation=auto")
            assert process.stderr is not None
            log = ""
            for line in process.stderr:
                log += line
                if line.endswith("] is running\n"):
                    mortal.stop()
            assert process.wait() == 75, log
        limpet.assert_nothing_left(process)
        assert_one_error(log)
        assert mortal.host in log
        with docker_registry(tmp_path / "mortal") as revived:
            assert tags(revived.host, "app") == []

    def test_in_every_upload(self, limpet: Builder, registry: RegistryServer) -> None:
        limpet.dockerfile("FROM scratch\nCOPY big /\n", big=noise(1 << 20))
        with front(registry.host) as before:
            before.fault(CutRequest(100_000), "PUT", times=1000)
            before.fault(CutRequest(100_000), "PATCH", times=1000)
            log = limpet.fails(f"--destination={before.host}/cut:1", code=75)
            assert f"{before.host}/cut" in log
        assert tags(registry.host, "cut") == []


class TestWrongContent:
    @pytest.fixture
    def corrupt(self, limpet: Builder, tmp_path: Path) -> Iterator[tuple[str, Path, str]]:
        """An image in a registry of its own, the file of its only layer, and the layer's digest."""
        limpet.dockerfile("FROM base\n")
        with docker_registry(tmp_path / "corrupt") as server:
            assert limpet(f"--destination={server.host}/corrupt:1").returncode == 0
            digest = _layer_digest(limpet.base)
            digits = digest.removeprefix("sha256:")
            data = server.storage / "docker/registry/v2/blobs/sha256" / digits[:2] / digits / "data"
            yield f"{server.host}/corrupt:1", data, digest

    @pytest.mark.parametrize("use", ["FROM IMAGE\nRUN true", "FROM scratch\nCOPY --from=IMAGE /bin/busybox /x"])
    @pytest.mark.parametrize(
        "position",
        [700_000, 0],
        ids=["content", "header"],
    )
    def test_a_layer_in_a_registry(
        self, limpet: Builder, registry: RegistryServer, corrupt: tuple[str, Path, str], use: str, position: int
    ) -> None:
        image, data, digest = corrupt
        _flip(data, position)
        limpet.dockerfile(use.replace("IMAGE", image))
        log = limpet.fails(f"--destination={registry.host}/of-corrupt:1")
        assert tags(registry.host, "of-corrupt") == []
        assert digest in log

    @pytest.mark.parametrize("use", ["FROM damaged\nRUN true", "FROM scratch\nCOPY --from=damaged /bin/busybox /x"])
    def test_a_damaged_tar_with_the_right_digest(self, limpet: Builder, tmp_path: Path, use: str) -> None:
        """Published in that state: the digest says nothing, so the error says which layer of which image it is."""
        damaged = bytearray(busybox.tar(("a", b"1"), ("b", b"2")))
        damaged[1024] ^= 1  # in the second header
        busybox.write_layout(tmp_path / "damaged", bytes(damaged))
        digest = _layer_digest(tmp_path / "damaged", 1)
        limpet.dockerfile(use)
        log = limpet.fails("--no-push", f"--build-context=damaged=oci-layout://{tmp_path}/damaged")
        said = log.split("error: ")[1].splitlines()[0]
        assert said.startswith(f"Dockerfile:{1 if 'RUN' in use else 2}: ")
        assert digest in said
        assert "damaged tar" in said
        assert str(tmp_path / "damaged") in said

    def test_a_layer_that_is_only_passed_on(
        self, limpet: Builder, registry: RegistryServer, corrupt: tuple[str, Path, str]
    ) -> None:
        image, data, digest = corrupt
        _flip(data, 700_000)
        limpet.dockerfile(f"FROM {image}\nENV A=1\n")
        log = limpet.fails(f"--destination={registry.host}/passed-on:1")
        assert tags(registry.host, "passed-on") == []
        assert digest in log

    def test_a_layer_in_a_layout(self, limpet: Builder, registry: RegistryServer, tmp_path: Path) -> None:
        busybox.write_layout(tmp_path / "corrupt")
        digest = _layer_digest(tmp_path / "corrupt")
        blob = tmp_path / "corrupt/blobs" / digest.replace(":", "/")
        _flip(blob, 700_000)
        for command in ("RUN true", "ENV A=1"):
            limpet.dockerfile(f"FROM corrupt\n{command}\n")
            log = limpet.fails(
                f"--destination={registry.host}/of-layout:1", f"--build-context=corrupt=oci-layout://{tmp_path}/corrupt"
            )
            assert digest.removeprefix("sha256:") in log
        assert tags(registry.host, "of-layout") == []

    def test_a_manifest(self, limpet: Builder, registry: RegistryServer) -> None:
        limpet.dockerfile("FROM base\n")
        assert (
            limpet(f"--destination={registry.host}/manifest:1", f"--digest-file={limpet.directory}/d").returncode == 0
        )
        digest = (limpet.directory / "d").read_text()
        with front(registry.host) as before:
            before.fault(Corrupt(), "GET", "/manifests/", times=1000)
            limpet.dockerfile(f"FROM {before.host}/manifest@{digest}\n")
            assert digest in limpet.fails("--no-push")


class TestArchivesThatWantOut:
    """Names in archives are names in the directory that the archive is unpacked to."""

    def test_add_stays_inside(self, limpet: Builder, tmp_path: Path) -> None:
        outside = tmp_path / "outside"
        outside.mkdir()
        evil = busybox.tar(
            ("../../../../../../dots", b"1"),
            (f"{outside}/absolute", b"2"),
            ("link", str(outside)),
            ("link/through", b"3"),
            ("up", "../../../../../../../.."),
            ("up/above", b"4"),
        )
        limpet.dockerfile("FROM scratch\nADD evil.tar /sub/\n", **{"evil.tar": evil})
        target = tmp_path / "result"
        done = limpet("--no-push", f"--oci-layout-path={target}")
        assert os.listdir(outside) == []
        assert not Path("/dots").exists()
        assert not Path("/above").exists()
        if done.returncode:
            assert_one_error(done.stderr)
            assert "Dockerfile:2: " in done.stderr
            assert "evil.tar" in done.stderr
            return
        _assert_plain_names(target)

    @needs_root
    @pytest.mark.root
    def test_add_to_a_root_stays_inside(self, limpet: Builder, tmp_path: Path) -> None:
        outside = tmp_path / "outside"
        outside.mkdir()
        (outside / "victim").write_text("whole")
        evil = busybox.tar(
            ("link", str(outside)),
            ("link/victim", b"broken"),
            links=(("hard", f"{outside}/victim"), ("hard2", f"../../../../../..{outside}/victim")),
        )
        limpet.dockerfile("FROM base\nRUN true\nADD evil.tar /\n", **{"evil.tar": evil})
        done = limpet("--no-push")
        assert (outside / "victim").read_text() == "whole"
        assert (outside / "victim").stat().st_nlink == 1
        assert os.listdir(outside) == ["victim"]
        if done.returncode:
            assert_one_error(done.stderr)
            assert "Dockerfile:3: " in done.stderr

    @needs_root
    @pytest.mark.root
    def test_a_base_layer_stays_inside(self, limpet: Builder, tmp_path: Path) -> None:
        outside = tmp_path / "outside"
        outside.mkdir()
        (outside / "victim").write_text("whole")
        evil = busybox.tar(
            ("../../../../../../dots", b"1"),
            ("link", str(outside)),
            ("link/victim", b"broken"),
            (f"../../..{outside}/.wh.victim", b""),
            links=(("hard", f"{outside}/victim"),),
        )
        busybox.write_layout(tmp_path / "evil", evil)
        limpet.dockerfile("FROM evil\nRUN true\n")
        done = limpet("--no-push", f"--build-context=evil=oci-layout://{tmp_path}/evil")
        assert (outside / "victim").read_text() == "whole"
        assert (outside / "victim").stat().st_nlink == 1
        assert os.listdir(outside) == ["victim"]
        assert not Path("/dots").exists()
        if done.returncode:
            assert_one_error(done.stderr)

    @pytest.mark.parametrize(
        "members",
        [
            (("../outside", b"1"),),
            (("/tmp/limpet-test-outside", b"1"),),
            (("link", ".."), ("link/outside", b"1")),
            (("link", "/tmp"), ("link/limpet-test-outside", b"1")),
        ],
        ids=["dots", "absolute", "symlink", "absolute-symlink"],
    )
    def test_a_context_is_refused_or_stays_inside(
        self, limpet: Builder, members: tuple[tuple[str, bytes | str], ...]
    ) -> None:
        archive = limpet.directory / "context.tar"
        archive.write_bytes(busybox.tar(("Dockerfile", b"FROM scratch\nCOPY . /\n"), *members))
        done = limpet(f"--context=tar://{archive}", "--no-push")
        if done.returncode:
            assert done.returncode == 1
            log = assert_one_error(done.stderr)
            assert str(archive) in log
            assert "make" in log.splitlines()[-1]  # the hint
        assert not Path("/tmp/limpet-test-outside").exists()
        assert list(limpet.directory.rglob("outside")) == []

    def test_copy_follows_no_link_out_of_the_context(self, limpet: Builder, tmp_path: Path) -> None:
        (tmp_path / "hostname").write_text("not for images")
        limpet.dockerfile("FROM scratch\nCOPY link/hostname /\n")
        (limpet.context / "link").symlink_to(tmp_path)
        assert "Dockerfile:2: " in limpet.fails("--no-push")


def test_no_place_for_run_names_its_line(limpet: Builder) -> None:
    limpet.dockerfile("FROM base\nENV A=1\nRUN true\n")
    log = limpet.fails("--no-push", "--isolation=none")
    assert "error: Dockerfile:3: " in log
    assert "--isolation=none" in log


@needs_root
@pytest.mark.root
def test_what_an_isolation_cannot_do_names_its_line(limpet: Builder) -> None:
    limpet.dockerfile("FROM base\nENV A=1\nRUN true\nRUN --network=none true\n")
    log = limpet.fails("--no-push", "--isolation=chroot")
    assert "error: Dockerfile:4: " in log
    assert "--network=none" in log


@pytest.mark.parametrize(
    ("flag", "entitlement"), [("--network=host", "network.host"), ("--security=insecure", "security.insecure")]
)
def test_a_privilege_that_was_not_given(limpet: Builder, flag: str, entitlement: str) -> None:
    limpet.dockerfile(f"FROM base\nRUN {flag} true\n")
    log = limpet.fails("--no-push")
    assert "error: Dockerfile:2: " in log
    assert f"--allow={entitlement}" in log
    done = limpet("--no-push", f"--allow={entitlement}")
    assert done.returncode == 0, done.stderr


class TestAFailingCommand:
    @pytest.mark.parametrize(("command", "code"), [("exit 7", 7), ("nosuchprogram", 127), ("kill -9 $$", 137)])
    def test_its_code_is_limpets(self, limpet: Builder, registry: RegistryServer, command: str, code: int) -> None:
        limpet.dockerfile(f"FROM base\nRUN echo shown; {command}\nRUN touch /never\n")
        log = limpet.fails(f"--destination={registry.host}/failing:1", code=code)
        assert "error: Dockerfile:2: " in log
        assert f"2 | >>> RUN echo shown; {command}" in log
        assert "[0 1/2] shown\n" in log
        assert str(code) in log.split("error: ")[1].splitlines()[0]
        hints = {7: "in the lines above", 127: "install it in an earlier RUN", 137: "memory"}
        assert hints[code] in log.splitlines()[-1]
        assert tags(registry.host, "failing") == []

    def test_a_shell_that_is_not_there(self, limpet: Builder) -> None:
        limpet.dockerfile('FROM base\nRUN ["/no/such/shell"]\n')
        assert "/no/such/shell" in limpet.fails("--no-push", code=127)

    def test_other_stages_are_stopped(self, limpet: Builder) -> None:
        """The sleep would outlast every patience: that the build ends shows that it was stopped."""
        limpet.dockerfile(
            "FROM base AS slow\nRUN sleep 3600\nFROM base AS bad\nRUN exit 9\n"
            "FROM scratch\nCOPY --from=bad / /\nCOPY --from=slow / /\n"
        )
        limpet.fails("--no-push", code=9)


def _layer_digest(directory: Path, number: int = 0) -> str:
    """The digest of a layer of the image in a layout."""
    return layout.read(layout.Location(directory), Platform.host()).image.layers[number].descriptor.digest


def _flip(file: Path, position: int) -> None:
    """Change one bit of `file`."""
    data = bytearray(file.read_bytes())
    data[position] ^= 1
    file.write_bytes(data)


def _assert_plain_names(directory: Path) -> None:
    """No layer of the layout has a name that could lead out of its root."""
    for layer in layout.read(layout.Location(directory), Platform.host()).image.layers:
        with layer.blob.open() as stream:
            changes = read_index(stream, compression=layer_compression(layer.descriptor.media_type))
        assert changes
        for change in changes:
            assert not change.path.startswith("/")
            assert ".." not in change.path.split("/")
