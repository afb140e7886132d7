"""Every kind of mount of a step, in every place."""

from __future__ import annotations

import pytest

from tests.isolation.places import Place

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def mounted(place: Place) -> dict[str, object]:
    return dict(place("mounts"))


def test_mounts_show_what_they_are_of(mounted: dict[str, str]) -> None:
    lines = mounted["output"].splitlines()
    context, single = "from the context", "one file"
    assert lines[:6] == [context, context, single, single, "before", single]
    assert lines[6:9] == ["hunter2", "hunter2", "for the user"]


def test_secrets_and_sockets_have_the_modes_asked_for(place: Place, mounted: dict[str, str]) -> None:
    user = "0:0" if place.kind.single_id else "1000:1001"
    assert mounted["output"].splitlines()[9:12] == [
        f"440 {user} regular file",
        "400 0:0 regular file",
        f"600 {user} socket",
    ]


def test_read_only_mounts_refuse(place: Place, mounted: dict[str, str]) -> None:
    if place.kind.isolation != "namespaces":
        pytest.skip("copies are laid in, which nothing protects; the originals are tested below")
    for what in ("bound", "single", "secret", "cache"):
        assert f"{what} is read-only" in mounted["output"]


def test_what_is_written_to_binds_is_discarded(mounted: dict[str, object]) -> None:
    assert mounted["context"] == {"file": "from the context\n"}
    assert mounted["single"] == "one file\n"


def test_caches_keep(mounted: dict[str, object]) -> None:
    assert mounted["cache"] == {"kept": "before\n", "made": "after\n"}


def test_the_layer_has_nothing_of_mounts_and_mount_points(mounted: dict[str, object]) -> None:
    assert mounted["changes"] == ["file result 644 0:0 b'result\\n'"]
    assert mounted["then_changes"] == []


def test_the_next_step_sees_none_of_them(place: Place, mounted: dict[str, str]) -> None:
    found = [line for line in mounted["then"].splitlines() if not line.startswith("ls:")]
    pods = ["/etc/hostname"] if place.kind.isolation == "in-place" else []
    assert found == [*pods, "/etc/hosts", "/etc/passwd", "/etc/resolv.conf", "/var/run"]


def test_the_agent_is_reached_through_its_socket(place: Place) -> None:
    assert place("agent") == "agent says hello"


def test_a_failed_step_leaves_no_secret(place: Place) -> None:
    result = place("failing_secret")
    assert result == {"code": 9, "seen": True, "changes": [], "found": ""}
