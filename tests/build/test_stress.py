"""Many builds at once on one store and one layer cache, some of them killed: what is finished is right."""

from __future__ import annotations

import io
import os
import random
import signal
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from builder.store.entries import PARTIAL
from builder.store.prune import prune
from tests.build import busybox
from tests.build.program import CHECKOUT, Builder, left_behind
from tests.build.test_store import push
from tests.servers.registry import RegistryServer
from tests.store.consistency import assert_consistent

BUILDS = 30
AT_ONCE = 8
SHARED = """RUN --mount=type=cache,target=/c,id=shared touch /c/$(hostname)-one; ls /c > /dev/null
"""
DOCKERFILES = {
    "one stage": "FROM {plain}\nRUN echo one > /one\n" + SHARED + "COPY data /data\n",
    "stages": "FROM {large} AS a\nRUN ls /many | wc -l > /count\nFROM {plain} AS b\n"
    + SHARED
    + "RUN echo b > /b\nFROM {large}\nWORKDIR /w\nCOPY --from=a /count /count\nCOPY --from=b /b /b\n",
    "no RUN": "FROM {large}\nCOPY --chown=user data /home/data\nADD data /more/\n",
    "files of an image": "FROM {plain}\nCOPY --from={large} /many/1 /one\nRUN ls /one | wc -l > /count\n",
    "a long chain": "FROM {large}\n" + "".join(f"RUN echo {n} > /many/{n}/new; rm /many/{n}/{n}\n" for n in range(4)),
}


@dataclass(frozen=True)
class Crowd:
    """Builds side by side, each in a work directory of its own."""

    limpet: Builder
    registry: RegistryServer
    directory: Path

    def context(self, name: str) -> Path:
        return self.directory / name.replace(" ", "-")

    def start(self, name: str, label: str, *arguments: str) -> subprocess.Popen[bytes]:
        """A build whose log goes to a file."""
        work = self.work(label)
        command = [sys.executable, "-m", "builder", f"--context={self.context(name)}", f"--work-dir={work}"]
        command += ["--reproducible", "--build-arg=SOURCE_DATE_EPOCH=1", *arguments]
        with open(self.directory / f"{label}.log", "wb") as log:
            return subprocess.Popen(
                command, cwd=CHECKOUT, env=self.limpet.environment(), stdout=log, stderr=log, start_new_session=True
            )

    def work(self, label: str) -> Path:
        return self.directory / "work" / label

    def log(self, label: str) -> str:
        return (self.directory / f"{label}.log").read_text()

    def digest(self, reference: str) -> str:
        """Of an image whose every byte is there: all is copied, and checked on the way."""
        command = ["skopeo", "copy", "-q", "--src-tls-verify=false", f"--digestfile={self.directory / 'pulled'}"]
        target = f"dir:{self.directory / 'copy'}"
        subprocess.run([*command, f"docker://{self.registry.host}/{reference}", target], check=True)
        return (self.directory / "pulled").read_text().strip()


@pytest.fixture
def crowd(limpet: Builder, registry: RegistryServer, base: Path, tmp_path: Path) -> Iterator[Crowd]:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for number in range(1000):
            member = tarfile.TarInfo(f"many/{number % 10}/{number}")
            member.size = 100
            archive.addfile(member, io.BytesIO(random.randbytes(100)))
    busybox.write_layout(tmp_path / "large", buffer.getvalue())
    push(base, registry, "stress/plain:1")
    push(tmp_path / "large", registry, "stress/large:1")
    crowd = Crowd(limpet, registry, tmp_path)
    images = {name: f"{registry.host}/stress/{name}:1" for name in ("plain", "large")}
    for name, text in DOCKERFILES.items():
        crowd.context(name).mkdir()
        (crowd.context(name) / "Dockerfile").write_text(text.format(**images))
        (crowd.context(name) / "data").write_text(name)
    yield crowd


def test_many_builds_at_once_some_of_them_killed(crowd: Crowd) -> None:
    seed = random.randrange(1 << 32)
    print("seed", seed)
    chance = random.Random(seed)
    store = crowd.directory / "store"
    store.mkdir()
    references = {}
    for name in DOCKERFILES:
        digest_file = crowd.directory / "digest"
        process = crowd.start(name, "reference", "--no-push", f"--digest-file={digest_file}")
        assert process.wait() == 0, crowd.log("reference")
        references[name] = digest_file.read_text()
    plans = []
    for number in range(BUILDS):
        name = chance.choice(list(DOCKERFILES))
        arguments = [f"--cache-dir={store}", "--cache=true", f"--cache-repo={crowd.registry.host}/stress/cache"]
        arguments += ["--cache-copy-layers"] * chance.choice((0, 1))
        arguments += ["--cache-dir-size=2Mi"] * (chance.random() < 0.2)
        arguments += ["--cache-mounts=registry"] * (chance.random() < 0.3)
        plans.append((number, name, arguments, chance.uniform(0.3, 2) if chance.random() < 0.4 else None))

    def carry_out(plan: tuple[int, str, list[str], float | None]) -> bool:
        number, name, arguments, killed_after = plan
        label = f"build{number}"
        process = crowd.start(name, label, *arguments, f"--destination={crowd.registry.host}/stress/out:{number}")
        timer = threading.Timer(killed_after or 0, os.kill, (process.pid, signal.SIGKILL))
        if killed_after is not None:
            timer.start()
        code = process.wait()
        timer.cancel()
        assert code == 0 or (killed_after is not None and code == -signal.SIGKILL), crowd.log(label)
        return code == 0

    with ThreadPoolExecutor(AT_ONCE) as pool:
        finished = list(pool.map(carry_out, plans))
    assert any(finished)
    for (number, name, _, _), is_finished in zip(plans, finished, strict=True):
        log = crowd.log(f"build{number}")
        assert "Traceback" not in log, log
        assert "damaged" not in log, log
        assert left_behind(-1, crowd.work(f"build{number}")) == []
        if is_finished:
            assert crowd.digest(f"stress/out:{number}") == references[name], (name, log)
            assert os.listdir(crowd.work(f"build{number}")) == []
    assert_consistent(store)
    prune(store)
    assert os.listdir(store / PARTIAL) == []
    assert [path.name for path in store.glob("mounts/*/*.*") if path.suffix != ".lock"] == []
    for name in DOCKERFILES:
        arguments = [f"--cache-dir={store}", "--cache=true", f"--cache-repo={crowd.registry.host}/stress/cache"]
        process = crowd.start(name, "after", *arguments, f"--destination={crowd.registry.host}/stress/out:after")
        assert process.wait() == 0, crowd.log("after")
        assert crowd.digest("stress/out:after") == references[name]
        assert "damaged" not in crowd.log("after")
    assert_consistent(store)
