"""Builds with a layer cache: what is reused, what is not, and that it makes no difference to the image."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.build import busybox
from tests.build.program import Builder
from tests.context_sources.conftest import git, make_repository
from tests.servers import git_http


@dataclass(frozen=True)
class Built:
    """A build that went well: its log, and its image's directory."""

    log: str
    layout: Path

    @property
    def hits(self) -> list[str]:
        """The instructions that came from the cache, in order."""
        return re.findall(r"Using caching version of cmd: (.*)", self.log)

    @property
    def misses(self) -> list[str]:
        return re.findall(r"No cached layer found for cmd (.*)", self.log)

    @property
    def reasons(self) -> set[str]:
        """Why steps missed."""
        return set(re.findall(r"\(cache miss: (.*)\)$", self.log, re.MULTILINE))

    @property
    def stages(self) -> set[int]:
        """The stages that were gone through."""
        return set(map(int, re.findall(r"Building stage .* \[idx: '(\d+)'", self.log)))

    @property
    def digest(self) -> str:
        found = re.search(r"digest: (sha256:\w+)", self.log)
        assert found
        return found[1]

    @property
    def config(self) -> dict[str, Any]:
        manifest = self._json(json.loads((self.layout / "index.json").read_text())["manifests"][0]["digest"])
        config: dict[str, Any] = self._json(manifest["config"]["digest"])
        return config

    def _json(self, digest: str) -> Any:
        return json.loads((self.layout / "blobs/sha256" / digest.removeprefix("sha256:")).read_text())


class Caching:
    """Builds of one context with one cache in a directory."""

    def __init__(self, limpet: Builder, directory: Path) -> None:
        self.limpet = limpet
        self.directory = directory
        self.cache = directory / "cache"
        self._number = 0

    def dockerfile(self, text: str, **files: bytes | str) -> None:
        self.limpet.dockerfile(text, **files)

    def __call__(self, *arguments: str, cache: bool = True, env: Mapping[str, str] | None = None) -> Built:
        self._number += 1
        layout = self.directory / f"image-{self._number}"
        asked = ("--cache", f"--cache-repo=oci:{self.cache}") if cache else ()
        done = self.limpet("--no-push", f"--oci-layout-path={layout}", *asked, *arguments, env=env)
        assert done.returncode == 0, done.stderr
        return Built(done.stderr, layout)


@pytest.fixture
def build(limpet: Builder, tmp_path: Path) -> Caching:
    return Caching(limpet, tmp_path)


THREE_STAGES = """
FROM base AS compile
WORKDIR /src
COPY a .
RUN cat a > b && head -c 8 /dev/urandom >> b
FROM base AS other
RUN head -c 8 /dev/urandom > /o
FROM base
ENV P=1
COPY --from=compile /src/b /b
COPY --from=other /o /o
RUN cat /b /o > /c
LABEL l=1
"""
RUNS = ["RUN cat a > b && head -c 8 /dev/urandom >> b", "RUN head -c 8 /dev/urandom > /o", "RUN cat /b /o > /c"]


class TestStages:
    def test_a_fully_cached_build_builds_the_last_stage_only_and_the_same_image(self, build: Caching) -> None:
        build.dockerfile(THREE_STAGES, a="text")
        first = build("--cache-copy-layers")
        assert first.hits == []
        assert first.stages == {0, 1, 2}
        progress = build.directory / "progress"
        second = build("--cache-copy-layers", f"--progress-file={progress}")
        assert second.misses == []
        assert second.stages == {2}
        assert second.digest == first.digest
        assert second.config["history"] == first.config["history"]
        done, total = progress.read_text().strip().split("/")
        assert done == total

    def test_without_cached_copies_the_stages_are_put_together_again(self, build: Caching) -> None:
        build.dockerfile(THREE_STAGES, a="text")
        first, second = build(), build()
        assert second.hits == ["WORKDIR /src", *RUNS]
        assert second.config["rootfs"] == first.config["rootfs"]

    def test_only_what_changed_is_done_again(self, build: Caching) -> None:
        build.dockerfile(THREE_STAGES, a="text")
        build("--cache-copy-layers")
        build.dockerfile(THREE_STAGES, a="other text")
        changed = build("--cache-copy-layers")
        # Everything in the last stage comes after a COPY of what changed; its second COPY needs the cached stage.
        assert changed.stages == {0, 1, 2}
        assert changed.hits == ["WORKDIR /src", "RUN head -c 8 /dev/urandom > /o"]

    def test_a_miss_does_not_stop_later_look_ups(self, build: Caching) -> None:
        build.dockerfile("FROM base\nCOPY a /a\nRUN cp /a /b\nCOPY c /c\nRUN cp /c /d\n", a="a", c="c")
        first, second = build(), build()
        assert second.hits == ["RUN cp /a /b", "RUN cp /c /d"]
        assert second.config["rootfs"] == first.config["rootfs"]

    def test_layers_of_different_builds_do_not_mix(self, build: Caching) -> None:
        """The second RUN copied what the first one made by chance: it is of no use on another result."""
        build.dockerfile("FROM base\nRUN head -c 8 /dev/urandom > /a\nRUN cp /a /b\nRUN cmp /a /b\n")
        first = build()
        entries = {json.loads(text)["history"][0]["created_by"]: path for path, text in configs(build.cache)}
        shutil.rmtree(entries["RUN head -c 8 /dev/urandom > /a"])
        second = build()
        assert second.hits == []
        assert "a RUN before it has to run again" in second.log
        assert second.digest != first.digest
        assert build().digest == second.digest

    def test_a_linked_copy_survives_another_base(self, build: Caching, tmp_path: Path) -> None:
        """And its stage is not built; a RUN after it sees what it copied."""
        text = (
            "FROM base AS s\nRUN head -c 8 /dev/urandom > /s\n"
            "FROM {} AS t\nRUN echo > /r\nCOPY --link --from=s /s /d/\nCOPY --link a /d/\nRUN cat /d/s /d/a > /x\n"
        )
        build.dockerfile(text.format("base"), a="a")
        first = build("--cache-copy-layers")
        build.dockerfile(text.format("other"), a="a")
        other = tmp_path / "other"
        busybox.write_layout(other, busybox.tar(("new", b"")))
        second = build("--cache-copy-layers", f"--build-context=other=oci-layout://{other}")
        copies = ["COPY --link --from=s /s /d/", "COPY --link a /d/"]
        assert second.hits == ["RUN head -c 8 /dev/urandom > /s", *copies]
        assert second.stages == {1}
        assert second.config["rootfs"]["diff_ids"][3:5] == first.config["rootfs"]["diff_ids"][2:4]
        cached = build("--cache-copy-layers", f"--build-context=other=oci-layout://{other}")
        assert (cached.misses, cached.digest) == ([], second.digest)

    def test_a_stage_of_stages(self, build: Caching) -> None:
        build.dockerfile("FROM base AS a\nRUN echo 1 > /1\nFROM a AS b\nRUN echo 2 > /2\nFROM b\nRUN cat /1 /2 > /3\n")
        first, second = build(), build()
        assert (second.misses, second.digest) == ([], first.digest)

    def test_a_mount_of_a_stage_counts(self, build: Caching) -> None:
        text = "FROM base AS a\nRUN echo {} > /1\nFROM base\nRUN --mount=from=a,target=/m cp /m/1 /2\n"
        build.dockerfile(text.format(1))
        build()
        again = build()
        assert again.stages == {1}
        build.dockerfile(text.format(2))
        assert build().hits == []


def configs(cache: Path) -> list[tuple[Path, str]]:
    """Each layer's entry with its image configuration."""
    found = []
    for entry in cache.iterdir():
        if entry.name == "records":
            continue
        index = json.loads((entry / "index.json").read_text())
        manifest = json.loads(blob(entry, index["manifests"][0]["digest"]).read_text())
        if manifest["annotations"]["limpet.cache.below"]:  # neither an index nor a cache mount
            found.append((entry, blob(entry, manifest["config"]["digest"]).read_text()))
    return found


def blob(layout: Path, digest: str) -> Path:
    return layout / "blobs/sha256" / digest.removeprefix("sha256:")


class TestKeys:
    def test_what_does_not_decide_it_does_not_count(self, build: Caching) -> None:
        build.dockerfile(
            "FROM base\nLABEL a=1\nARG UNUSED\nCOPY a /a\nRUN --mount=type=secret,id=s echo   > /x\nCMD x\n", a="a"
        )
        build("--secret=id=s,env=S", "--build-arg=HTTP_PROXY=http://one", env={"S": "one"})
        build.dockerfile(
            "# comment\nFROM base AS name\nLABEL a=2\nARG OTHER\nCOPY a /a\n"
            "RUN --mount=type=secret,id=s \\\n echo   > /x\nEXPOSE 1\n",
            a="a",
        )
        os.utime(build.limpet.context / "a", (1, 1))
        os.chmod(build.limpet.context / "a", 0o664)
        if os.geteuid() == 0:
            os.chown(build.limpet.context / "a", 7, 7)
        again = build("--secret=id=s,env=S", "--build-arg=HTTP_PROXY=http://two", env={"S": "two"})
        assert len(again.hits) == 1

    def test_a_repository_counts_by_its_commit(self, build: Caching, tmp_path: Path) -> None:
        if git_http.missing():
            pytest.skip(git_http.missing())
        with git_http.git_http(tmp_path / "git") as server:
            repository = make_repository(server.root / "r.git", tmp_path / "git-work")
            text = f"FROM scratch\nADD {server.url}/r.git#{{}} /r/\n"
            build.dockerfile(text.format("main"))
            build("--cache-copy-layers")
            assert build("--cache-copy-layers").misses == []
        with git_http.git_http(tmp_path / "git") as server:
            git("clone", "-q", "--mirror", str(tmp_path / "git-work"), str(server.root / "again.git"), cwd=tmp_path)
            git("update-ref", "refs/heads/main", repository.dev, cwd=server.root / "again.git")
            build.dockerfile(f"FROM scratch\nADD {server.url}/again.git#main /r/\n")
            build("--cache-copy-layers")
            git("update-ref", "refs/heads/main", repository.first, cwd=server.root / "again.git")
            assert build("--cache-copy-layers").hits == []


def test_a_plan_says_what_is_cached(build: Caching) -> None:
    """Both ways to see what a build would do, and neither of them does anything."""
    build.dockerfile(THREE_STAGES, a="text")
    build("--cache-copy-layers")
    flags = ("--no-push", "--cache", f"--cache-repo=oci:{build.cache}", "--cache-copy-layers")
    plan = build.limpet(*flags, "--dryrun").stdout
    assert "RUN cat /b /o > /c  [cached]" in plan
    assert plan.count("not built: what is read from it is cached") == 2
    build.dockerfile(THREE_STAGES, a="other")
    kept = sorted(build.cache.rglob("*"))
    plan = build.limpet(*flags, "--dryrun").stdout
    assert "WORKDIR /src  [cached]" in plan
    assert "COPY a .  [not cached: what it copies changed]" in plan
    assert "RUN head -c 8 /dev/urandom > /o  [cached]" in plan
    assert "RUN cat /b /o > /c  [not cached: COPY --from=compile /src/b /b before it: " in plan
    assert "not built" not in plan
    command = build.limpet.command(*flags, "--format=json")
    command.insert(command.index("builder") + 1, "plan")
    printed = subprocess.run(command, env=build.limpet.environment(), capture_output=True, text=True, check=True)
    steps = [step for stage in json.loads(printed.stdout)["stages"] for step in stage["steps"] if step["layer"]]
    assert {step["cache"] for step in steps} >= {"cached", "not cached: what it copies changed"}
    assert sorted(build.cache.rglob("*")) == kept
    assert "cached" not in build.limpet("--no-push", "--dryrun").stdout


class TestFlags:
    def test_old_entries_do_not_count(self, build: Caching) -> None:
        build.dockerfile("FROM base\nRUN echo > /x\n")
        build()
        again = build("--cache-ttl=1us")
        assert again.hits == []
        assert "Cache entry expired: " in again.log
        assert build("--cache-ttl=1h").misses == []

    def test_run_layers_can_be_left_out(self, build: Caching) -> None:
        build.dockerfile("FROM base\nCOPY a /a\nRUN echo > /x\nWORKDIR /w\n", a="a")
        arguments = ("--cache-run-layers=false", "--cache-copy-layers")
        build(*arguments)
        assert build(*arguments).hits == ["COPY a /a"]
        assert len(configs(build.cache)) == 1

    def test_the_cache_may_be_read_only_read(self, build: Caching) -> None:
        build.dockerfile("FROM base\nRUN echo > /x\n")
        build("--no-push-cache")
        assert not build.cache.exists()
        build()
        assert build("--no-push-cache").misses == []

    def test_layers_of_finished_steps_are_kept_when_a_later_one_fails(self, build: Caching, limpet: Builder) -> None:
        build.dockerfile("FROM base\nRUN echo > /x\nRUN exit 3\n")
        limpet.fails("--no-push", "--cache", f"--cache-repo=oci:{build.cache}", code=3)
        build.dockerfile("FROM base\nRUN echo > /x\nRUN exit 0\n")
        assert build().hits == ["RUN echo > /x"]

    def test_no_push_needs_a_cache_repo(self, limpet: Builder) -> None:
        limpet.dockerfile("FROM base\n")
        assert "specify cache repo with --cache-repo" in limpet.fails("--no-push", "--cache", "--destination=a/b")

    def test_single_snapshots_are_cached_as_a_whole(self, build: Caching) -> None:
        build.dockerfile("FROM base\nCOPY a /a\nRUN cp /a /b\nENV A=1\nRUN cp /b /c\nLABEL l=1\n", a="a")
        first, second = build("--single-snapshot"), build("--single-snapshot")
        assert second.hits == ["RUN cp /b /c"]
        assert second.digest == first.digest
        assert len(second.config["rootfs"]["diff_ids"]) == 2
        build.dockerfile("FROM base\nCOPY a /a\nRUN cp /a /b\nENV A=1\nRUN cp /b /c\nLABEL l=1\n", a="changed")
        assert build("--single-snapshot").hits == []


IMAGES = [
    THREE_STAGES.replace("/dev/urandom", "/bin/busybox"),
    "FROM base\nCOPY . /all\nRUN rm /all/a\nWORKDIR /all\nRUN echo > new\nCOPY a b\nCMD x\n",
    "FROM base AS a\nRUN mkdir /d && ln -s d /l\nFROM a\nCOPY a /l/\nUSER user\nRUN echo > /tmp/x\nVOLUME /v\n",
    "FROM base\nCOPY --link --chown=1:2 a /x/\nRUN --mount=type=cache,target=/c cp /x/a /c/ && cp -a /c/a /y\n",
]


@pytest.mark.parametrize(
    ("text", "flags"), [*((text, ()) for text in IMAGES), *((text, ("--single-snapshot",)) for text in IMAGES[:1])]
)
def test_a_cached_build_makes_the_image_of_an_uncached_one(build: Caching, text: str, flags: tuple[str, ...]) -> None:
    build.dockerfile(text, a="text")
    arguments = ("--reproducible", "--cache-copy-layers", *flags)
    uncached = build("--reproducible", *flags, cache=False)
    cold, warm = build(*arguments), build(*arguments)
    assert warm.misses == []
    assert cold.digest == warm.digest == uncached.digest


def test_builds_side_by_side_agree_on_what_is_kept(build: Caching, limpet: Builder) -> None:
    """Each makes other layers; the cache has those of one build that belong together."""
    build.dockerfile("FROM base\nRUN head -c 8 /dev/urandom > /a\nRUN cp /a /b\nRUN cp /b /c\n")
    arguments = ("--no-push", "--cache", f"--cache-repo=oci:{build.cache}")
    processes = [limpet.start(*arguments) for _ in range(3)]
    logs = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], logs
    build()  # where two have written by turns, the layers on top are made once more
    assert build().misses == []


def test_several_platforms(build: Caching) -> None:
    """A stage that they share is cached once; what is read from it makes no platform's layers doubtful."""
    build.dockerfile(
        "FROM --platform=$BUILDPLATFORM base AS s\nRUN head -c 8 /dev/urandom > /s\n"
        "FROM scratch\nARG TARGETARCH\nCOPY a /$TARGETARCH\nCOPY --from=s /s /\n",
        a="a",
    )
    arguments = ("--cache-copy-layers", "--platform=linux/amd64,linux/arm64")
    first, second = build(*arguments), build(*arguments)
    assert second.misses == []
    assert second.stages == {1}
    assert second.digest == first.digest
    build.dockerfile((build.limpet.context / "Dockerfile").read_text() + "COPY --from=s /s /t\n", a="a")
    assert build(*arguments).misses == ["COPY --from=s /s /t"] * 2
    assert build(*arguments).misses == []


class TestReasons:
    def test_what_changed_is_said(self, build: Caching, tmp_path: Path) -> None:
        text = "FROM base AS first\nARG A=1\nRUN echo > /1\nFROM base\nCOPY a /a\nCOPY --from=first /1 /2\nRUN x=y\n"
        build.dockerfile(text, a="a")
        assert build().reasons == {"no earlier build is known"}
        assert build().reasons == set()
        assert build("--build-arg=A=2").reasons == {
            "variable A changed",
            "COPY --from=first /1 /2 before it: what it copies (stage first) changed",
        }
        build.dockerfile(text, a="b")
        assert "COPY a /a before it: what it copies changed" in build().reasons
        metadata = tmp_path / "metadata.json"
        build.dockerfile(text.replace("x=y", "x=z"), a="b")
        assert build(f"--metadata-file={metadata}").reasons == {"the instruction was RUN x=y"}
        value = json.loads(metadata.read_text())
        assert value["cache"] == {"hits": 1, "misses": 1}
        assert [step["reason"] for step in value["steps"] if step["reason"]] == ["the instruction was RUN x=y"]

    def test_two_stages_may_have_one_name(self, build: Caching) -> None:
        build.dockerfile("FROM base AS s\nRUN echo > /1\nRUN echo > /2\nFROM s AS s\nRUN echo > /3\n")
        assert build().reasons == {"no earlier build is known"}
        build.dockerfile("FROM base AS s\nRUN echo > /1\nRUN echo > /x\nFROM s AS s\nRUN echo > /3\n")
        assert build().reasons == {"the instruction was RUN echo > /2", "stage s (0) changed"}

    def test_values_are_not_kept(self, build: Caching) -> None:
        build.dockerfile("FROM base\nARG A\nENV B=public\nRUN echo > /1\n")
        build("--build-arg=A=hunter2")
        (record,) = (build.cache / "records").iterdir()
        assert "hunter2" not in record.read_text()
        assert "public" not in record.read_text()


def test_a_damaged_layer_is_made_again(build: Caching) -> None:
    """The damage is found when the cache is asked; the entry is written again."""
    build.dockerfile("FROM base\nRUN echo text > /x\nRUN cp /x /y\n")
    build()
    for entry, _ in configs(build.cache):
        for path in (entry / "blobs/sha256").iterdir():
            data = path.read_bytes()
            if data[:2] == b"\x1f\x8b":
                path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    again = build()
    assert again.hits == []
    assert again.log.count("WARN") == 1
    assert build().misses == []
