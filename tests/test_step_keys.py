"""What counts in the keys of a plan, and what does not."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.layer.format import LayerFormat
from builder.oci.image import Image
from builder.oci.platform import Platform
from builder.stage import StageSettings
from builder.step_keys import KeySources, plan_keys
from builder.step_work import Inputs
from builder.steps.cache_mounts import CacheMounts
from builder.steps.context import ContextTree, IgnoreFile
from builder.steps.mounts import Secrets
from tests import images
from tests.plan.planning import ARM64, plan_of
from tests.servers import web

BASE = images.image(images.layer({"a": b"base"}))
OTHER = images.image(images.layer({"a": b"other"}))


class Context:
    """A build context, and what keys of Dockerfiles over it are."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.path = directory / "context"
        self.path.mkdir(parents=True)
        (directory / "work").mkdir()
        self.images: dict[str, Image] = {}
        self.ignore: tuple[str, ...] = ()

    def write(self, name: str, data: str = "text") -> Path:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(data)
        return path

    def keys(self, text: str, layer_format: LayerFormat | None = None, **options: Any) -> list[str]:
        """The keys of all steps, stage by stage; "" for one without."""
        inputs = Inputs(
            context=ContextTree(self.path, IgnoreFile(".dockerignore", self.ignore)),
            named={},
            secrets=Secrets({"s": os.urandom(8)}),
            fetch_git=lambda reference: self.directory / "git",
            caches=CacheMounts(self.directory / "caches", lambda: False),
            created=0,
            hostname="host",
            work_dir=self.directory / "work",
        )
        plan = plan_of(text, **options)
        keys = plan_keys(plan, KeySources(inputs, self.resolve, StageSettings(layer_format or LayerFormat()))).steps
        numbers = [(stage.index, number) for stage in plan.stages for number in range(len(stage.steps))]
        return [keys[place].key.value if place in keys else "" for place in numbers]

    def last(self, text: str, **options: Any) -> str:
        key = self.keys(text, **options)[-1]
        assert key
        return key

    def resolve(self, reference: str, platform: Platform) -> Image:
        return self.images.get(reference, BASE)


@pytest.fixture
def context(tmp_path: Path) -> Context:
    made = Context(tmp_path)
    made.write("a")
    made.write("b")
    made.write("d/x")
    return made


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("RUN echo 1", "RUN echo 2"),
        ("RUN echo 1", "RUN echo  1"),
        ("ENV A=1\nRUN x", "ENV A=2\nRUN x"),
        ("ENV A=1\nRUN x", "ENV B=1\nRUN x"),
        ("ENV A=1\nRUN x", "ARG A=1\nENV B=\nRUN x"),
        ("ARG A=1\nRUN x", "ARG A=2\nRUN x"),
        ("RUN x", "USER 1000\nRUN x"),
        ("RUN x", "WORKDIR /w\nRUN x"),
        ("RUN --network=none x", "RUN x"),
        ('RUN ["x", "y z"]', 'RUN ["x", "y", "z"]'),
        ('SHELL ["/bin/sh", "-c"]\nRUN x', 'SHELL ["/bin/sh", "-ec"]\nRUN x'),
        ("RUN <<EOF\n1\nEOF", "RUN <<EOF\n2\nEOF"),
        ("RUN <<EOF\n#!x\n1\nEOF", "RUN <<EOF\n#!x\n2\nEOF"),
        ("RUN --mount=target=/m,source=a x", "RUN --mount=target=/m,source=b x"),
        ("RUN --mount=target=/m,source=a x", "RUN --mount=target=/n,source=a x"),
        ("RUN --mount=type=cache,target=/m x", "RUN --mount=type=cache,target=/m,id=i x"),
        ("RUN --mount=type=secret,id=s x", "RUN --mount=type=secret,id=s,env=E x"),
        ("RUN --mount=type=secret,id=s x", "RUN --mount=type=ssh,id=s x"),
        ("RUN --mount=type=tmpfs,target=/t x", "RUN --mount=type=tmpfs,target=/t,size=1m x"),
        ("COPY a /", "COPY b /"),
        ("COPY a /", "COPY a /a/"),
        ("COPY a /", "ADD a /"),
        ("COPY a b /", "COPY b a /"),
        ("COPY a /", "COPY --chown=1 a /"),
        ("COPY a /", "COPY --chmod=600 a /"),
        ("COPY a /", "COPY --link a /"),
        ("COPY d/x /", "COPY --parents d/x /"),
        ("COPY d /", "COPY --exclude=x d /"),
        ("COPY <<EOF /a\n1\nEOF", "COPY <<EOF /a\n2\nEOF"),
        ("COPY <<E /a\n1\nE", "COPY <<F /a\n1\nF"),
        ("ADD a /", "ADD --unpack=false a /"),
        ("COPY --from=image a /", "COPY --from=other a /"),
        ("WORKDIR /a", "WORKDIR /b"),
        ("WORKDIR /a", "USER 1\nWORKDIR /a"),
    ],
)
def test_what_decides_a_layer_counts(context: Context, before: str, after: str) -> None:
    context.images["docker.io/library/other:latest"] = OTHER
    assert context.last(f"FROM base\n{before}\n") != context.last(f"FROM base\n{after}\n")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("RUN x", "LABEL a=b\nCMD y\nEXPOSE 1\nRUN x"),
        ("RUN x", "MAINTAINER me\nHEALTHCHECK NONE\nSTOPSIGNAL 9\nRUN x"),
        ("RUN x", "ARG A\nRUN x"),
        ("RUN x", "# comment\nRUN     x"),
        ("COPY a /x", "ENV B=1\nARG C=1\nCOPY a /x"),
        ("ENV D=/w\nWORKDIR $D", "WORKDIR /w"),
        ("ENV S=a\nCOPY $S /", "COPY a /"),
        ("USER 1\nCOPY a /", "COPY a /"),
    ],
)
def test_what_does_not_decide_it_does_not_count(context: Context, before: str, after: str) -> None:
    assert context.last(f"FROM base\n{before}\n") == context.last(f"FROM base\n{after}\n")


def test_every_step_before_counts(context: Context) -> None:
    first = context.keys("FROM base\nRUN 1\nENV A=1\nCOPY a /\nRUN 2\n")
    second = context.keys("FROM base\nRUN 0\nENV A=1\nCOPY a /\nRUN 2\n")
    assert first[1] == second[1] == ""
    assert len(set(first + second)) == 7


def test_the_base_counts_by_its_layers_and_the_platform(context: Context) -> None:
    text = "FROM base\nRUN x\n"
    key = context.last(text)
    context.images["docker.io/library/base:latest"] = images.image(*BASE.layers, label="of another configuration")
    assert context.last(text) == key
    assert context.last("FROM base@sha256:" + "0" * 64 + "\nRUN x\n") == key
    context.images["docker.io/library/base:latest"] = OTHER
    assert len({key, context.last(text), context.last(text, target_platform=ARM64)}) == 3
    assert context.last("FROM scratch\nCOPY a /\n") != context.last("FROM base\nCOPY a /\n")


def test_how_layers_are_written_counts_but_not_how_well_they_are_compressed(context: Context) -> None:
    formats = [LayerFormat(), LayerFormat(compression="zstd"), LayerFormat(newest_mtime=0)]
    assert len({context.keys("FROM base\nRUN x\n", form)[0] for form in formats}) == 3
    assert context.keys("FROM base\nRUN x\n", LayerFormat(level=9)) == context.keys("FROM base\nRUN x\n")


class TestLinks:
    """COPY --link: a layer of its own, whatever is below."""

    TEXT = "FROM base\nRUN {}\n{} a /\nRUN x\n"

    @pytest.mark.parametrize("copy", ["COPY --link", "ADD --link", "COPY --link --chown=1:1"])
    def test_what_is_below_does_not_count_but_for_what_is_above(self, context: Context, copy: str) -> None:
        one, two = context.keys(self.TEXT.format(1, copy)), context.keys(self.TEXT.format(2, copy))
        assert [a == b for a, b in zip(one, two, strict=True)] == [False, True, False]
        context.write("a", "other")
        changed = context.keys(self.TEXT.format(1, copy))
        assert [a == b for a, b in zip(one, changed, strict=True)] == [True, False, False]

    def test_a_mode_is_given_in_the_files_below(self, context: Context) -> None:
        keys = [context.keys(self.TEXT.format(number, "COPY --link --chmod=600"))[1] for number in (1, 2)]
        assert keys[0] != keys[1]

    def test_below_may_be_unknown(self, context: Context) -> None:
        keys = context.keys("FROM base\nCOPY nothing /\nCOPY --link a /\nRUN x\n")
        assert [bool(key) for key in keys] == [False, True, False]


class TestContexts:
    @pytest.mark.parametrize("step", ["COPY . /", "COPY d* /", "ADD d /", "RUN --mount=target=/m x"])
    def test_what_is_read_counts(self, context: Context, step: str) -> None:
        text = f"FROM base\n{step}\n"
        keys = [context.last(text)]
        context.write("d/x", "other")
        keys.append(context.last(text))
        context.write("d/y")
        keys.append(context.last(text))
        os.chmod(context.path / "d/y", 0o755)
        keys.append(context.last(text))
        (context.path / "d/x").unlink()
        keys.append(context.last(text))
        os.symlink("y", context.path / "d/x")
        keys.append(context.last(text))
        assert len(set(keys)) == len(keys)

    @pytest.mark.parametrize("step", ["COPY d /", "ADD d /", "RUN --mount=target=/m,source=d x"])
    def test_neither_what_is_not_read_nor_whose_checkout_it_is(self, context: Context, step: str) -> None:
        text = f"FROM base\n{step}\n"
        key = context.last(text)
        context.write("a", "other")
        context.write("d/ignored")
        context.ignore = ("d/ignored",)
        os.utime(context.path / "d/x", (1, 1))
        os.chmod(context.path / "d/x", 0o664)
        if os.geteuid() == 0:
            os.chown(context.path / "d/x", 1, 1)
        assert context.last(text) == key

    def test_what_is_not_there_has_no_key_and_nothing_after_it(self, context: Context) -> None:
        keys = context.keys("FROM base\nRUN x\nCOPY nothing /\nRUN y\n")
        assert [bool(key) for key in keys] == [True, False, False]

    FILES = st.dictionaries(st.sampled_from(["a", "b", "d/a", "d/b"]), st.text("xy", max_size=2), min_size=1)

    @settings(deadline=None)
    @given(FILES, FILES)
    def test_keys_are_equal_only_if_the_files_are(
        self, tmp_path_factory: pytest.TempPathFactory, one: Mapping[str, str], two: Mapping[str, str]
    ) -> None:
        keys = []
        for files in (one, two):
            context = Context(tmp_path_factory.mktemp("context") / "of")
            for name, data in files.items():
                context.write(name, data)
            keys.append(context.last("FROM base\nCOPY . /\n"))
        assert (keys[0] == keys[1]) is (one == two)


class TestStages:
    TEXT = "FROM base AS s\nRUN {}\nFROM base\n{}\n"

    @pytest.mark.parametrize(
        "step", ["COPY --from=s a /", "RUN --mount=from=s,target=/m x", "RUN --mount=type=cache,from=s,target=/m x"]
    )
    def test_a_stage_that_is_read_counts(self, context: Context, step: str) -> None:
        assert context.last(self.TEXT.format("1", step)) != context.last(self.TEXT.format("2", step))

    def test_a_stage_that_is_stood_on_counts(self, context: Context) -> None:
        text = "FROM base AS s\nRUN {}\nFROM s\nRUN x\n"
        assert context.last(text.format("1")) != context.last(text.format("2"))
        assert context.last(text.format("1")) == context.last("FROM base\nRUN 1\nRUN x\n")

    def test_what_its_name_is_does_not_count(self, context: Context) -> None:
        text = "FROM base AS {0}\nRUN 1\nFROM base\nCOPY --from={0} a /\n"
        assert context.last(text.format("s")) == context.last(text.format("t"))

    def test_a_stage_without_a_key_makes_none(self, context: Context) -> None:
        assert context.keys("FROM base AS s\nCOPY nothing /\nFROM base\nCOPY --from=s a /\n") == ["", ""]


class TestRemote:
    def test_a_url_counts_by_what_the_server_has(self, context: Context, tmp_path: Path) -> None:
        if web.missing():
            pytest.skip(web.missing())
        with web.web_server(tmp_path / "web") as server:
            text = f"FROM base\nADD http://{server.host}/file /\n"
            assert context.keys(text) == [""]
            (server.root / "file").write_text("one")
            os.utime(server.root / "file", (1, 1))
            first = context.last(text)
            assert context.last(text) == first
            (server.root / "file").write_text("other")
            assert context.last(text) != first
            # Who asks does not count.
            assert context.last(text.replace("http://", "http://user:password@")) == context.last(text)

    def test_a_checksum_says_it_without_asking(self, context: Context) -> None:
        assert context.last(f"FROM base\nADD --checksum=sha256:{'0' * 64} http://127.0.0.1:1/file /\n")

    def test_a_repository_counts_by_what_it_has(self, context: Context) -> None:
        text = "FROM base\nADD https://127.0.0.1:1/r.git /\n"
        (context.directory / "git").mkdir()
        first = context.last(text)
        (context.directory / "git/file").write_text("x")
        assert context.last(text) != first
