"""extract(base) + layers == root, in every place, whatever the base is and whatever a step does to it."""

from __future__ import annotations

import base64
import shlex

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builder.errors import ImageError
from builder.rootfs.entry import Change, Entry, FileType, Opaque, Whiteout
from builder.rootfs.layered import LayeredTree
from tests.isolation.places import Place
from tests.layer.conftest import tar_of
from tests.rootfs.trees import image

pytestmark = pytest.mark.root

names = st.sampled_from(["a", "b", "c", "ö", "x y", "n" * 120])
paths = st.lists(names, min_size=1, max_size=3).map("/".join).map(shlex.quote)
modes = st.sampled_from(["700", "4755", "1777", "2711", "000", "644"])
owners = st.sampled_from(["0:0", "7:8", "1000:1001", "0:42"])
commands = st.one_of(
    st.builds("echo {1} >{0}".format, paths, names.map(shlex.quote)),
    st.builds("echo more >>{0}".format, paths),
    st.builds("mkdir -p {0}".format, paths),
    st.builds("rm -rf {0}".format, paths),
    st.builds("rm -rf {0}; mkdir {0}; echo new >{0}/a".format, paths),
    st.builds("mv {0} {1}".format, paths, paths),
    st.builds("cp -a {0} {1}".format, paths, paths),
    st.builds("ln {0} {1}".format, paths, paths),
    st.builds("ln -s {0} {1}".format, paths, paths),
    st.builds("chmod {1} {0}".format, paths, modes),
    st.builds("chown -h {1} {0}".format, paths, owners),
    st.builds("touch -hd @{1} {0}".format, paths, st.integers(0, 2**32)),
    st.builds("mkfifo {0}".format, paths),
    st.builds("mknod {0} c 1 5".format, paths),
    st.builds("dd if=/dev/zero of={0} bs=1 count=1 seek={1}".format, paths, st.sampled_from([0, 5000, 10**6])),
)
# Reading from a fifo would wait for a writer: opening both ways does not.
scripts = st.lists(commands, min_size=1, max_size=10).map(
    lambda lines: "cd /; " + "; ".join(f"timeout 0.3 sh -c {shlex.quote(line)}" for line in lines) + "; true"
)


def hiding_something(layers: list[list[Change]]) -> list[list[Change]]:
    """`layers` without opaque markers of directories that no layer below has: readers differ on what they make."""
    tree, kept = LayeredTree(), []
    for layer in layers:
        changes: list[Change] = []
        for change in layer:
            below = tree.entry(change.path)
            if not isinstance(change, Opaque) or (below and below.type is FileType.DIRECTORY):
                changes.append(change)
        kept.append(changes)
        try:
            tree = tree.apply(changes)
        except ImageError:
            break
    return kept


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(layers=image, steps=st.lists(scripts, min_size=1, max_size=2))
def test_base_and_layers_make_the_root(place: Place, layers: list[list[Change]], steps: list[str]) -> None:
    tars = [base64.b64encode(tar_of(layer)).decode() for layer in hiding_something(layers)]
    assert place("law", tars=tars, scripts=steps) == []


@pytest.mark.parametrize(
    "layers",
    [
        [[Whiteout("a"), Whiteout("a/a")]],
        [[Entry("b", FileType.DIRECTORY, mode=0o711, mtime=10**18)], [Opaque("b")]],
        [[Entry("a/b", FileType.FILE)], [Entry("a", FileType.CHARACTER_DEVICE, device=(1, 3))]],
        [
            [Entry("a/b", FileType.FILE)],
            [Entry("a", FileType.CHARACTER_DEVICE, device=(1, 3)), Entry("a/a", FileType.FILE)],
        ],
    ],
    ids=[
        "whiteouts in each other",
        "an opaque directory without an entry",
        "a device over a directory",
        "a device, then a directory",
    ],
)
def test_layers_that_hide_in_unusual_ways(place: Place, layers: list[list[Change]]) -> None:
    tars = [base64.b64encode(tar_of(layer)).decode() for layer in layers]
    assert place("law", tars=tars, scripts=["cd /; timeout 0.3 sh -c 'echo a >a'; true"]) == []


@pytest.mark.parametrize("below", [[], [Entry("gone", FileType.FILE)], [Entry("gone", FileType.DIRECTORY)]])
def test_removals_where_nothing_is(place: Place, below: list[Change]) -> None:
    """A whiteout needs a directory to lie in; where no layer below has one, none appears, and no file makes way."""
    removals: list[Change] = [Whiteout("gone/a"), Whiteout("gone/b/c")]
    tars = [base64.b64encode(tar_of(layer)).decode() for layer in (below, removals)]
    assert place("law", tars=tars, scripts=["true"]) == []
