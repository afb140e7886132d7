"""RUN as a process: who, which environment, which mounts."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from builder.errors import BuildError, DockerfileError
from builder.isolation import AgentSocket, Bind, Cache, Process, SecretFile, Tmpfs
from builder.rootfs.entry import FileType
from builder.steps.cache_mounts import CacheMounts
from builder.steps.context import ContextTree, IgnoreFile
from builder.steps.mounts import MountPreparer, Secrets
from builder.steps.run import run_process
from builder.steps.step import (
    BindMount,
    CacheMount,
    FromContext,
    FromNamedContext,
    FromStage,
    RunStep,
    SecretMount,
    SshMount,
    TmpfsMount,
)
from tests.steps.trees import image, step_fields

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="gives files away: needs uid 0")


class Build:
    """Contexts, a stage's directory and a work directory, all below `path`."""

    def __init__(self, path: Path, patterns: tuple[str, ...] = (), secrets: Secrets | None = None) -> None:
        self.path = path
        for name in ("context", "named", "stage", "work"):
            (path / name).mkdir(exist_ok=True)
        context = ContextTree(path / "context", IgnoreFile(".dockerignore", patterns))
        named = ContextTree(path / "named")
        self.preparer = MountPreparer(
            contexts=lambda origin: context if isinstance(origin, FromContext) else named,
            directories=lambda origin: path / "stage",
            secrets=secrets or Secrets(),
            caches=CacheMounts(path / "caches"),
            work_dir=path / "work",
        )

    def write(self, *paths: str) -> None:
        for path in paths:
            (self.path / path).parent.mkdir(parents=True, exist_ok=True)
            (self.path / path).write_text(path)

    @contextmanager
    def process(self, *mounts: Any, **fields: Any) -> Iterator[Process]:
        step = run_step(mounts=mounts, **fields)
        with run_process(step, image(), self.preparer, lambda data: None) as process:
            yield process


def run_step(**fields: Any) -> RunStep:
    defaults = {"argv": ("true",), "env": {}, "key_env": {}, "user": "", "cwd": "/"}
    return RunStep(**step_fields(**{**defaults, **fields}))


@pytest.fixture
def build(tmp_path: Path) -> Build:
    return Build(tmp_path)


class TestUserAndEnvironment:
    @pytest.mark.parametrize(
        ("user", "expected", "home"),
        [
            ("", (0, 0, ()), "/root"),
            ("bob", (1000, 1001, (10,)), "/home/bob"),
            ("bob:wheel", (1000, 10, ()), "/home/bob"),
            ("1000:0", (1000, 0, ()), "/home/bob"),
            ("4711", (4711, 0, ()), "/"),
        ],
    )
    def test_user(self, build: Build, user: str, expected: tuple[int, int, tuple[int, ...]], home: str) -> None:
        with build.process(user=user) as process:
            assert (process.uid, process.gid, process.groups) == expected
            assert process.env == {"HOME": home}

    def test_an_unknown_user(self, build: Build) -> None:
        with pytest.raises(DockerfileError, match="nobody") as failure, build.process(user="nobody"):
            pass
        assert failure.value.location is not None

    @pytest.mark.parametrize(("given", "home"), [({"HOME": "/h"}, "/h"), ({"HOME": ""}, "/root"), ({}, "/root")])
    def test_home(self, build: Build, given: dict[str, str], home: str) -> None:
        with build.process(env=given) as process:
            assert process.env["HOME"] == home

    def test_a_script_of_a_heredoc(self, build: Build) -> None:
        with build.process(pipes={"EOF": "#!/bin/sh\n"}) as process:
            assert process.mounts == (SecretFile("/dev/pipes/EOF", b"#!/bin/sh\n", mode=0o755),)

    @pytest.mark.parametrize(("security", "insecure"), [("sandbox", False), ("insecure", True)])
    def test_security(self, build: Build, security: str, insecure: bool) -> None:
        with build.process(security=security) as process:
            assert process.insecure is insecure


class TestSecrets:
    def test_file_and_variable(self, tmp_path: Path) -> None:
        (tmp_path / "token").write_bytes(b"from file")
        build = Build(tmp_path, secrets=Secrets({"a": b"value\xff", "b": tmp_path / "token"}))
        a = SecretMount(id="a", target="/run/secrets/a", env="A", mode=0o440, uid=5, gid=6)
        b = SecretMount(id="b", target="", env="B")
        with build.process(a, b, env={"A": "overridden"}) as process:
            assert process.mounts == (SecretFile("/run/secrets/a", b"value\xff", 5, 6, 0o440),)
            assert process.env["A"] == "value\udcff"
            assert process.env["B"] == "from file"
            assert "value" not in repr(process)

    def test_a_file_is_read_when_it_is_needed(self, tmp_path: Path) -> None:
        build = Build(tmp_path, secrets=Secrets({"a": tmp_path / "token"}))
        mount = SecretMount(id="a", target="/a")
        (tmp_path / "token").write_text("old")
        with build.process(mount):
            pass
        (tmp_path / "token").write_text("new")
        with build.process(mount) as process:
            assert process.mounts == (SecretFile("/a", b"new"),)
        (tmp_path / "token").unlink()
        with pytest.raises(DockerfileError, match="secret a cannot be read"), build.process(mount):
            pass

    def test_one_that_was_not_given(self, build: Build) -> None:
        with build.process(SecretMount(id="a", target="/a", env="A")) as process:
            assert process.mounts == ()
            assert "A" not in process.env
        with pytest.raises(DockerfileError) as failure, build.process(SecretMount(id="a", target="/a", required=True)):
            pass
        assert "--secret id=a,src=FILE" in failure.value.hint
        assert failure.value.location is not None

    def test_a_variable_cannot_hold_a_nul(self, tmp_path: Path) -> None:
        build = Build(tmp_path, secrets=Secrets({"a": b"hush\0hush"}))
        with pytest.raises(DockerfileError) as failure, build.process(SecretMount(id="a", target="", env="A")):
            pass
        assert "hush" not in str(failure.value)

    def test_agents(self, tmp_path: Path) -> None:
        build = Build(tmp_path, secrets=Secrets(agents={"default": Path("/agent")}))
        target = "/run/buildkit/ssh_agent.0"
        with build.process(SshMount(id="default", target=target), SshMount(id="other", target="/x")) as process:
            assert process.mounts == (AgentSocket(Path("/agent"), target),)
        with (
            pytest.raises(DockerfileError) as failure,
            build.process(SshMount(id="other", target="/x", required=True)),
        ):
            pass
        assert "--ssh other=SOCKET" in failure.value.hint


class TestBinds:
    def test_targets_are_below_the_working_directory(self, build: Build) -> None:
        with build.process(TmpfsMount(target="t", size=5), TmpfsMount(target="/u"), cwd="/w/x") as process:
            assert process.mounts == (Tmpfs("/w/x/t", 5), Tmpfs("/u"))

    @ROOT
    def test_a_context_that_nothing_is_excluded_from_is_mounted_where_it_lies(self, build: Build) -> None:
        build.write("context/src/a", "named/x")
        mounts = (
            BindMount(origin=FromContext(), source="/", target="/all"),
            BindMount(origin=FromContext(), source="src/a", target="/a", writable=True),
            BindMount(origin=FromNamedContext("n"), source="/x", target="/x"),
        )
        with build.process(*mounts) as process:
            assert process.mounts == (
                Bind(build.path / "context", "/all"),
                Bind(build.path / "context" / "src" / "a", "/a", writable=True),
                Bind(build.path / "named" / "x", "/x"),
            )

    @ROOT
    def test_a_filtered_context_is_a_copy_that_costs_no_bytes(self, tmp_path: Path) -> None:
        build = Build(tmp_path, patterns=("secret", "d/drop"))
        build.write("context/secret", "context/d/keep", "context/d/drop", "context/d/theirs")
        os.link(tmp_path / "context" / "d" / "keep", tmp_path / "context" / "d" / "again")
        os.chown(tmp_path / "context" / "d" / "theirs", 1000, 1000)
        os.utime(tmp_path / "context" / "d", ns=(1, 1_500_000_000_000_000_000))
        mount = BindMount(origin=FromContext(), source="", target="/all")
        with build.process(mount) as process, build.process(mount) as again:
            (bind,) = process.mounts
            assert isinstance(bind, Bind)
            assert again.mounts == process.mounts
        found = {str(path.relative_to(bind.source)) for path in bind.source.rglob("*")}
        assert found == {"d", "d/keep", "d/again", "d/theirs"}
        assert os.stat(bind.source / "d" / "keep").st_ino == os.stat(tmp_path / "context" / "d" / "keep").st_ino
        theirs = os.stat(bind.source / "d" / "theirs")
        assert (theirs.st_uid, theirs.st_gid) == (0, 0)
        assert os.stat(tmp_path / "context" / "d" / "theirs").st_uid == 1000
        assert os.stat(bind.source / "d").st_mtime_ns == 1_500_000_000_000_000_000

    def test_links_do_not_lead_out_of_a_stage(self, build: Build) -> None:
        build.write("stage/etc/passwd", "outside")
        (build.path / "stage" / "link").symlink_to("../../../../../../../etc")
        with build.process(BindMount(origin=FromStage(0), source="/link/passwd", target="/p")) as process:
            assert process.mounts == (Bind(build.path / "stage" / "etc" / "passwd", "/p"),)

    def test_a_source_that_is_not_there(self, tmp_path: Path) -> None:
        build = Build(tmp_path, patterns=("gone",))
        build.write("context/gone", "context/main.py")
        for source, hint in (("/mian.py", "did you mean main.py?"), ("/gone", "pattern 'gone'")):
            with (
                pytest.raises(DockerfileError) as failure,
                build.process(BindMount(origin=FromContext(), source=source, target="/a")),
            ):
                pass
            assert hint in failure.value.hint
            assert failure.value.location is not None


def cache(**fields: Any) -> CacheMount:
    return CacheMount(**{"id": "c", "target": "/c", **fields})


def source_of(process: Process) -> Path:
    (mount,) = process.mounts
    assert isinstance(mount, Cache)
    return mount.source


class TestCaches:
    def test_a_cache_keeps_what_was_written(self, build: Build) -> None:
        with build.process(cache()) as process:
            (source_of(process) / "x").write_text("kept")
        with build.process(cache(target="elsewhere", read_only=True), cwd="/w") as process:
            assert (source_of(process) / "x").read_text() == "kept"
            assert process.mounts == (Cache(source_of(process), "/w/elsewhere", read_only=True),)

    def test_other_ids_owners_and_beginnings_are_other_caches(self, build: Build) -> None:
        build.write("stage/a/x", "stage/b/y")
        mounts = [
            cache(),
            cache(id="d"),
            cache(mode=0o700),
            cache(origin=FromStage(0), source="/a"),
            cache(origin=FromStage(0), source="/b"),
        ]
        sources = []
        for mount in mounts:
            with build.process(mount) as process:
                sources.append(source_of(process))
        assert len(set(sources)) == len(mounts)

    @ROOT
    def test_owner_and_mode_of_a_new_one(self, build: Build) -> None:
        with build.process(cache(mode=0o2770, uid=1000, gid=1001)) as process:
            status = os.stat(source_of(process))
            assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o2770, 1000, 1001)

    def test_it_begins_with_what_it_comes_from_once(self, build: Build) -> None:
        build.write("stage/a/d/x")
        (build.path / "stage" / "a" / "l").symlink_to("d/x")
        mount = cache(origin=FromStage(0), source="/a")
        with build.process(mount) as process:
            assert (source_of(process) / "l").read_text() == "stage/a/d/x"
            (source_of(process) / "d" / "x").write_text("changed")
        assert (build.path / "stage" / "a" / "d" / "x").read_text() == "stage/a/d/x"
        with build.process(mount) as process:
            assert (source_of(process) / "d" / "x").read_text() == "changed"

    def test_a_file_is_no_beginning(self, build: Build) -> None:
        build.write("stage/a")
        with (
            pytest.raises(DockerfileError, match="cannot begin"),
            build.process(cache(origin=FromStage(0), source="/a")),
        ):
            pass

    def test_sharing(self, build: Build) -> None:
        with build.process(cache()) as one, build.process(cache()) as two:
            assert source_of(one) == source_of(two)
        with build.process(cache(sharing="private")) as one, build.process(cache(sharing="private")) as two:
            assert source_of(one) != source_of(two)
            with build.process(cache()) as three:
                assert source_of(three) not in (source_of(one), source_of(two))

    def test_twice_in_one_step(self, build: Build) -> None:
        with build.process(cache(sharing="locked"), cache(sharing="locked", target="/d")) as process:
            assert [mount.target for mount in process.mounts] == ["/c", "/d"]

    def test_a_locked_one_is_waited_for(self, build: Build) -> None:
        order: list[str] = []
        waiting = threading.Event()

        def second() -> None:
            waiting.set()
            with build.process(cache(sharing="locked")):
                order.append("second")

        with build.process(cache(sharing="locked")) as process:
            thread = threading.Thread(target=second)
            thread.start()
            waiting.wait()
            (source_of(process) / "x").touch()
            order.append("first")
        thread.join()
        assert order == ["first", "second"]

    def test_waiting_ends_when_the_build_does(self, build: Build, tmp_path: Path) -> None:
        with build.process(cache(sharing="locked")):
            stopped = CacheMounts(tmp_path / "caches", stopped=lambda: True)
            preparer = MountPreparer(lambda o: ContextTree(tmp_path), lambda o: tmp_path, Secrets(), stopped, tmp_path)
            with (
                pytest.raises(BuildError, match="stopped"),
                preparer.prepare(run_step(mounts=(cache(sharing="locked"),))),
            ):
                pass

    def test_filling_a_cache_ends_when_the_build_does(self, tmp_path: Path) -> None:
        (tmp_path / "source").mkdir()
        preparer = MountPreparer(
            lambda o: ContextTree(tmp_path),
            lambda o: tmp_path,
            Secrets(),
            CacheMounts(tmp_path / "caches"),
            tmp_path,
            stopped=lambda: True,
        )
        step = run_step(mounts=(cache(origin=FromContext(), source="/source"),))
        with pytest.raises(BuildError, match="stopped"), preparer.prepare(step):
            pass

    def test_a_lock_ends_with_its_process(self, build: Build) -> None:
        with build.process(cache(sharing="locked")) as process:
            source = source_of(process)
        holder = subprocess.Popen(
            [
                sys.executable,
                "-c",
                textwrap.dedent("""
                    import fcntl, sys
                    file = open(sys.argv[1] + ".lock", "a")
                    fcntl.flock(file, fcntl.LOCK_EX)
                    print("locked", flush=True)
                    sys.stdin.read()
                """),
                str(source),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"locked\n"
        with build.process(cache(sharing="private")) as process:
            assert source_of(process) != source
        holder.kill()
        holder.wait()
        with build.process(cache(sharing="locked")) as process:
            assert source_of(process) == source

    def test_one_that_was_half_made_is_made_again(self, build: Build) -> None:
        build.write("stage/a/x")
        mount = cache(origin=FromStage(0), source="/a")
        with build.process(mount) as process:
            source = source_of(process)
        (source / "x").unlink()
        source.rename(source.with_name("0.new"))
        with build.process(mount) as process:
            assert (source_of(process) / "x").is_file()
            assert not source.with_name("0.new").exists()


@ROOT
def test_a_copy_for_a_mount_has_everything(tmp_path: Path) -> None:
    """Types, modes, owners, attributes, times and shared names are those of the context."""
    build = Build(tmp_path, patterns=("x",))
    build.write("context/x", "context/d/f")
    source = tmp_path / "context" / "d"
    os.mkfifo(source / "fifo", 0o640)
    os.symlink("f", source / "l")
    os.chmod(source / "f", 0o4755)
    os.setxattr(source, "user.a", b"b")
    with build.process(BindMount(origin=FromContext(), source="/", target="/m")) as process:
        (bind,) = process.mounts
        assert isinstance(bind, Bind)
        copy, original = ContextTree(bind.source), ContextTree(tmp_path / "context")
        for path in ("d", "d/f", "d/fifo", "d/l"):
            assert copy.entry(path) == original.entry(path)
        assert copy.entry("d/fifo").type is FileType.FIFO  # type: ignore[union-attr]
