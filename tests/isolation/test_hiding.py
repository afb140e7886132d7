"""A step sees the image and what it mounts, and nothing of Limpet."""

from __future__ import annotations

import pytest

from tests.isolation.places import Place

pytestmark = pytest.mark.root


def test_a_step_finds_nothing_of_limpet(place: Place) -> None:
    result = place("hiding")
    # The same search from outside finds it: it can find something.
    assert "/environ" in result["control"]
    assert "a file of the context" in result["control"]
    for user in ("root", "user"):
        own = ("SHLVL=", "PWD=", "HOME=", "PATH=")
        lines = [line for line in result[user].splitlines() if not line.startswith(own)]
        if place.kind.hidden or user == "user":
            assert lines == ["done"]
        elif place.kind.isolation == "in-place":
            # Its limit: root finds the work directory, and the environment of other programs but not of Limpet.
            assert result[user].count("/environ") == 1
            assert "a file of the context" in result[user]
            assert lines[-2:] == ["killed a child of limpet", "done"]
        else:
            # chroot's limit, which it says aloud: root may signal every process of its pod, and reads none.
            assert lines == ["can signal limpet", "killed a child of limpet", "done"]
    assert result["alive"] == place.kind.hidden


@pytest.mark.parametrize("uid", [0, 1000])
def test_a_step_finds_nothing_around_itself(place: Place, uid: int) -> None:
    if place.kind.isolation != "namespaces":
        pytest.skip("nothing can be mounted: the search needs /proc and the pod's /usr")
    assert place("surroundings", uid=uid) == ["done"]


def test_a_step_finds_no_secret_of_another(place: Place) -> None:
    if place.kind.isolation == "in-place":
        pytest.skip("one step at a time")
    assert place("secret_of_another_step") == {"looked": "looked\n", "finished": True}
