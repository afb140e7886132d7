"""Isolation in place, in pods: what it hides, what it cannot, and what is left when it is killed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.task.pods import KINDS, PodKind

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="pods are made with podman as root"),
]
LIMPET = "/limpet/bin/limpet"
PLAIN = next(kind for kind in KINDS if kind.name == "confined root")
OF_TASK = next(kind for kind in KINDS if kind.name == "confined root of the Task")


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """A context with a busybox to start from; its Dockerfile is the test's."""
    context = tmp_path / "context"
    (context / "root/bin").mkdir(parents=True)
    (context / "root/bin/busybox").write_bytes(Path("/bin/busybox").read_bytes())
    (context / "root/bin/busybox").chmod(0o755)
    (context / "root/bin/sh").symlink_to("busybox")
    return context


def write(context: Path, dockerfile: str) -> None:
    (context / "Dockerfile").write_text("FROM scratch AS one\nCOPY root /\nENV PATH=/bin\n" + dockerfile)


def shell(kind: PodKind, image: str, context: Path, script: str, volumes: dict[Path, str], **env: str) -> str:
    """What a script in a pod says; `$build` is a build in place, and all must succeed."""
    text = f'build="{LIMPET} build --context=/context --isolation=in-place --no-push"\n{script}'
    volumes = {context: "/context:ro", **volumes}
    done = kind.run(image, ["/limpet/bin/sh", "-ec", text], volumes, {"PATH": "/limpet/bin", **env})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def said(log: str) -> list[str]:
    """The output of steps."""
    return [line.partition("] ")[2] for line in log.splitlines() if line.startswith("[")]


def test_credentials_are_gone_and_back_or_named(executor: str, context: Path, tmp_path: Path) -> None:
    fixed, free = tmp_path / "fixed", tmp_path / "free"
    for directory in (fixed, free):
        directory.mkdir()
        (directory / "config.json").write_text('{"auths": {}}')
    (free / "config.json").chmod(0o640)
    (free / "token").write_text("swordfish")
    os.utime(free / "config.json", (1000, 1000))
    write(context, "RUN busybox ls /free /kaniko/.docker\nRUN busybox grep -l TOKEN /proc/*/environ; echo done\n")
    log = shell(
        PLAIN,
        executor,
        context,
        "exec $build --secret=id=x,src=/free/token",
        {fixed: "/kaniko/.docker:ro", free: "/free"},
        DOCKER_CONFIG="/free",
        TOKEN="in-the-environment",
    )
    assert "as root it can read what this pod mounts, /limpet, /kaniko/.docker/config.json" in log
    assert said(log)[-1] == "done"
    assert [line for line in said(log) if line and "ermission" not in line] == [
        *("/free:", "/kaniko/.docker:", "config.json", "done"),
    ]
    assert (free / "config.json").read_text() == '{"auths": {}}'
    assert (free / "token").read_text() == "swordfish"
    status = (free / "config.json").stat()
    assert (status.st_mode & 0o7777, status.st_mtime) == (0o640, 1000)


@pytest.mark.parametrize(("kind", "seen"), [(PLAIN, True), (OF_TASK, False)], ids=str)
def test_other_processes_are_hidden_where_privileges_cannot_grow(
    kind: PodKind, seen: bool, executor: str, context: Path
) -> None:
    write(context, "RUN busybox grep -l in-the-environment /proc/*/environ 2>/dev/null; echo done\n")
    script = "TOKEN=in-the-environment /limpet/bin/python3 -c 'import time; time.sleep(100)' &\n$build"
    found = said(shell(kind, executor, context, script, {}))
    if not seen and tuple(map(int, os.uname().release.split(".")[:2])) < (6, 12):
        pytest.skip("Linux before 6.12 cannot")
    assert bool(found[:-1]) == seen
    assert found[-1] == "done"


def test_what_a_volume_hides_is_seen_in_a_chroot(executor: str, context: Path, tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    (context / "root/volume").mkdir()
    (context / "root/volume/of-the-image").touch()
    write(
        context,
        "RUN busybox ls /volume\nFROM scratch AS two\nCOPY root/bin /bin\nENV PATH=/bin\nRUN echo x >/volume/written\n"
        "WORKDIR /volume/deep\nRUN busybox pwd\n",
    )
    log = shell(PLAIN, executor, context, "exec $build --target=one --target=two", {volume: "/volume"})
    assert said(log) == ["of-the-image", "/volume/deep"]
    assert "in a chroot, without /proc: the image has a /volume, and this pod another one" in log
    assert "RUN changed /volume, which is a volume of this pod: that is in no layer" in log
    assert os.listdir(volume) == ["written"]


def test_a_killed_build_is_undone_by_the_next(executor: str, context: Path) -> None:
    write(context, "RUN echo up\n")
    (context / "Dockerfile.long").write_text(
        "FROM scratch\nCOPY root /\nENV PATH=/bin\nRUN echo up; busybox sleep 1000\n"
    )
    script = """
    before=$(echo /*)
    $build --dockerfile=/context/Dockerfile.long >/limpet/work/log 2>&1 &
    while ! grep -qs '] up' /limpet/work/log; do :; done
    $build 2>&1 | grep 'another build' || exit 3
    kill -9 $!
    while [ -e /proc/$!/exe ]; do :; done
    [ "$(echo /*)" != "$before" ] || exit 4
    $build
    [ "$(echo /*)" = "$before" ] || exit 5
    """
    assert said(shell(PLAIN, executor, context, script, {}))[-1] == "up"


def test_sigterm_leaves_nothing_behind(executor: str, context: Path, tmp_path: Path) -> None:
    """Neither the step's process, which ignores the signal, nor a stray of it, nor anything of its root."""
    free = tmp_path / "free"
    free.mkdir()
    (free / "config.json").write_text('{"auths": {}}')
    write(
        context,
        "RUN busybox setsid busybox sleep 3600 & echo lost >/etc/lost; trap '' TERM; busybox sleep 3600 & "
        "echo up; wait\n",
    )
    script = """
    state() { stat -c '%A %u %g %n' / /etc /limpet /tmp; ls -A / /etc /limpet/work /free; ps -o comm; }
    state >/tmp/before
    $build >/limpet/log 2>&1 &
    while ! grep -qs '] up' /limpet/log; do :; done
    [ -e /etc/lost ] && [ ! -e /free/config.json ] || exit 3
    while [ "$(ps -o comm | grep -c busybox)" != 2 ]; do :; done
    kill -TERM $!
    code=0; wait $! || code=$?
    rm /limpet/log
    state >/tmp/after
    diff /tmp/before /tmp/after
    echo "exit code $code"
    """
    assert shell(PLAIN, executor, context, script, {free: "/free"}, DOCKER_CONFIG="/free") == "exit code 143\n"
