"""Instructions that change the configuration only: the configuration and the history after them."""

from __future__ import annotations

from typing import Any

import pytest

from builder.errors import DockerfileError
from builder.oci.config import Healthcheck
from builder.steps.step import MaintainerStep
from tests.plan.planning import base_image, created_by, last_step, plan_of, target_of

A = "docker.io/library/a:latest"


@pytest.mark.parametrize(
    ("lines", "field", "value", "text"),
    [
        ('CMD ["a", "b c"]', "cmd", ("a", "b c"), 'CMD ["a" "b c"]'),
        ("CMD a b", "cmd", ("/bin/sh", "-c", "a b"), 'CMD ["/bin/sh" "-c" "a b"]'),
        ("CMD []", "cmd", (), "CMD []"),
        ("CMD", "cmd", ("/bin/sh", "-c", ""), 'CMD ["/bin/sh" "-c" ""]'),
        ('ENTRYPOINT ["a"]', "entrypoint", ("a",), 'ENTRYPOINT ["a"]'),
        ("USER $U", "user", "usr", "USER usr"),
        ("USER $NONE", "user", "", "USER "),
        ('SHELL ["/bin/bash", "-c"]', "shell", ("/bin/bash", "-c"), "SHELL [/bin/bash -c]"),
        ("STOPSIGNAL SIG${S}", "stop_signal", "SIGTERM", "STOPSIGNAL SIGTERM"),
        ("STOPSIGNAL rtmax-14", "stop_signal", "rtmax-14", "STOPSIGNAL rtmax-14"),
        ("STOPSIGNAL 99", "stop_signal", "99", "STOPSIGNAL 99"),
        ("VOLUME /b $V", "volumes", ("/b", "/vv"), "VOLUME [/b /vv]"),
        ('VOLUME ["/x y"]', "volumes", ("/x y",), "VOLUME [/x y]"),
        ("EXPOSE 443/UDP 80", "exposed_ports", ("443/udp", "80/tcp"), "EXPOSE [443/udp 80/tcp]"),
        ("EXPOSE 80-82", "exposed_ports", ("80/tcp", "81/tcp", "82/tcp"), "EXPOSE [80/tcp 81/tcp 82/tcp]"),
        ("EXPOSE $P", "exposed_ports", ("1/tcp", "2/udp"), "EXPOSE [1/tcp 2/udp]"),
        ("EXPOSE $NONE", "exposed_ports", (), "EXPOSE []"),
        ("EXPOSE 80${NONE:-/udp}", "exposed_ports", ("80/udp",), "EXPOSE [80/udp]"),
        ("EXPOSE 127.0.0.1:8-9:18-19", "exposed_ports", ("18/tcp", "19/tcp"), "EXPOSE [18/tcp 19/tcp]"),
        ("LABEL $U=$V b='$V'", "labels", {"usr": "/vv", "b": "$V"}, "LABEL usr=/vv b=$V"),
        ("LABEL a b c", "labels", {"a": "b c"}, "LABEL a=b c"),
        (
            "HEALTHCHECK --interval=1m30s --retries=3 CMD $U",
            "healthcheck",
            Healthcheck(("CMD-SHELL", "$U"), interval=90_000_000_000, retries=3),
            "HEALTHCHECK {Test:[CMD-SHELL $U] Interval:1m30s Timeout:0s StartPeriod:0s StartInterval:0s Retries:3}",
        ),
        (
            "HEALTHCHECK NONE",
            "healthcheck",
            Healthcheck(("NONE",)),
            "HEALTHCHECK {Test:[NONE] Interval:0s Timeout:0s StartPeriod:0s StartInterval:0s Retries:0}",
        ),
    ],
)  # fmt: skip
def test_configuration_and_history(lines: str, field: str, value: Any, text: str) -> None:
    stage = target_of(f'FROM a\nENV U=usr S=TERM V=/vv P="1 2/udp"\n{lines}')
    assert getattr(stage.final, field) == value
    assert created_by(stage)[-1] == text
    assert stage.steps[-1].history is not None and stage.steps[-1].history.empty_layer


@pytest.mark.parametrize(
    "line",
    [
        "STOPSIGNAL SIGFOO",
        "STOPSIGNAL 0",
        "STOPSIGNAL RTMAX-15",
        "VOLUME $NONE",
        "EXPOSE 80/foo",
        "EXPOSE 65536",
        "EXPOSE a",
        "EXPOSE 9-8",
        "EXPOSE /tcp",
        "EXPOSE 1-2:3-5",
        "EXPOSE 300.1.1.1:80:80",
        "EXPOSE ١",
        "USER \"a",
    ],
)  # fmt: skip
def test_what_means_nothing_names_its_line(line: str) -> None:
    with pytest.raises(DockerfileError) as caught:
        plan_of(f"FROM a\n\n{line}")
    assert caught.value.location is not None and caught.value.location.start == 3


def test_entrypoint_drops_the_command_of_the_base() -> None:
    images = {A: base_image(cmd=("base",), entrypoint=("old",))}
    assert target_of("FROM a\nENTRYPOINT x", images).final.cmd is None
    assert target_of('FROM a\nCMD ["mine"]\nENTRYPOINT x', images).final.cmd == ("mine",)
    assert target_of("FROM a AS b\nCMD x\nFROM b\nENTRYPOINT y", images).final.cmd is None


def test_onbuild_leaves_no_history() -> None:
    stage = target_of("FROM a\nONBUILD RUN <<EOF\nhi\nEOF\nONBUILD ENV X=$Y")
    assert stage.final.on_build == ("RUN <<EOF\nhi\nEOF", "ENV X=$Y")
    assert created_by(stage) == []
    assert len(stage.steps) == 2


def test_maintainer_is_the_author() -> None:
    step = last_step("FROM a\nMAINTAINER me <me@h>")
    assert isinstance(step, MaintainerStep) and step.author == "me <me@h>"
    assert target_of("FROM a\nMAINTAINER me").author == "me"
    assert target_of("FROM a", {A: base_image(author="base")}).author == "base"


def test_labels_of_the_command_line_come_last_and_leave_no_history() -> None:
    stage = target_of("FROM a\nLABEL l=1 m=2", labels={"l": "cli", "n": "3"})
    assert stage.final.labels == {"l": "cli", "m": "2", "n": "3"}
    assert stage.steps[-1].exec_config.labels == {"l": "1", "m": "2"}
    assert created_by(stage) == ["LABEL l=1 m=2"]
