"""Whatever a Dockerfile says, it is planned or refused with a reason; and a plan is consistent."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from builder.dockerfile import parse
from builder.errors import BuildError, DockerfileError
from builder.oci.platform import Platform
from builder.plan import BaseImage, Plan, PlanOptions, StageBase, external_images, plan, render_json, render_text
from builder.steps.step import AddStep, CopyStep, RunStep, WorkdirStep
from tests.plan.planning import AMD64, base_image

WORDS = r"""
a b $X ${X} ${X:-y} ${ '$X' "$X" "a \ / /a ../x ./. x/ a=b X=1 X= = -1 0 1 99999999999 ١ --from=a --from=1 --from=$X
--chown=1:2 --chmod=644 --chmod=z --link --mount=type=cache,target=/c --mount=from=b,target=$X --mount=type=ssh
--mount=type=secret,id=s --platform=linux/arm64 --platform=$X --checksum=x https://h/x git@h:r.git <<E <<-'E' 80/tcp
80-90 SIGTERM ["a"] [] NONE CMD RUN COPY ENV scratch é
"""
KEYWORDS = """
RUN COPY ADD ENV ARG LABEL CMD ENTRYPOINT EXPOSE VOLUME USER WORKDIR STOPSIGNAL SHELL HEALTHCHECK ONBUILD FROM # E
"""
words = st.sampled_from([*WORDS.split(), "\udcff"])
lines = st.builds(
    lambda keyword, rest: " ".join((keyword, *rest)), st.sampled_from(KEYWORDS.split()), st.lists(words, max_size=4)
)
# Mostly right: each needs values that cannot break its grammar.
values = st.sampled_from(["a", "$X", "${Y:-z}", "'$X'", "/abs", "rel/x", "x/", "80", "é\udcff"])
likely = st.builds(
    str.format,
    st.sampled_from(
        [
            "RUN {0} {1}",
            'RUN ["{0}"]',
            "RUN --mount=type=cache,target={0} --mount=type=tmpfs,target=/t {1}",
            "RUN <<E\n{0}\nE",
            "COPY {0} {1}",
            "COPY --from=b --chown={0} {0} {1}",
            "COPY <<E {0}\n{1}\nE",
            "ADD --link {0} https://h/{0} {1}/",
            "ENV K={0} L={1}",
            "ENV X {0}",
            "ARG K={0}",
            "ARG X",
            "LABEL {0}={1}",
            "CMD {0}",
            'ENTRYPOINT ["{0}"]',
            "EXPOSE 80 ${{P:-81-83/udp}}",
            "VOLUME {0}",
            "USER {0}",
            "WORKDIR {0}",
            'SHELL ["{0}"]',
            "HEALTHCHECK CMD {0}",
            "ONBUILD RUN {0}",
            "ONBUILD COPY --from=b {0} {1}",
        ]
    ),
    values,
    values,
)
names = st.sampled_from("abc")
froms = st.builds(lambda base, name: f"FROM {base} AS {name}", names, names)
bodies = st.one_of(
    st.lists(st.one_of(likely, likely, likely, froms), max_size=12),
    st.lists(st.one_of(likely, lines, froms), max_size=6),
)
files = bodies.map(lambda body: "\n".join(["FROM a AS b", *body]))
triggers = st.lists(st.one_of(likely, likely, lines), max_size=2).map(tuple)


def planned(text: str, on_build: tuple[str, ...]) -> Plan:
    """The plan with a base image that has triggers."""

    def resolve(reference: str, platform: Platform) -> BaseImage:
        return base_image(platform, on_build=on_build if reference.endswith("/a:latest") else ())

    options = PlanOptions(build_platform=AMD64, build_args={"X": "x"})
    dockerfile = parse(text.encode("utf-8", "surrogateescape"), "Dockerfile")
    known = external_images(dockerfile, options)
    result = plan(dockerfile, options, resolve)
    assert set(known) <= set(result.images)
    return result


@given(files, triggers)
def test_a_file_is_planned_or_refused(text: str, on_build: tuple[str, ...]) -> None:
    try:
        result = planned(text, on_build)
    except DockerfileError as error:
        assert error.location is not None and error.location.start >= 1
        return
    except BuildError:
        return
    render_text([result]).encode()
    assert json.loads(render_json([result]).encode())["targets"] == list(result.targets)
    check_consistency(result)


def check_consistency(result: Plan) -> None:
    """Stages come after what they need; layers are where history says; nobody changes the configuration unseen."""
    done: set[int] = set()
    for stage in result.stages:
        assert done.issuperset(stage.dependencies)
        if isinstance(stage.base, StageBase):
            assert stage.base.index in stage.dependencies
        done.add(stage.index)
        for step in stage.steps:
            makes_layer = step.history is not None and not step.history.empty_layer
            assert makes_layer == isinstance(step, RunStep | CopyStep | AddStep | WorkdirStep)
        assert stage.final == (stage.steps[-1].exec_config if stage.steps else stage.start)
    assert done.isdisjoint(skipped.index for skipped in result.skipped)
