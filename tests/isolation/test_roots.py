"""Roots: their layers, what is applied to them, what they say changed."""

from __future__ import annotations

import pytest

from tests.isolation.places import Place
from tests.isolation.scenarios import PASSWD

pytestmark = pytest.mark.root


def test_changes_of_every_kind(place: Place) -> None:
    script = """
        chown 1000:1001 /data/one; chmod 4755 /data/two; ln -s one /data/l; chown -h 5:6 /data/l; mkfifo -m 640 /data/p
        ln /data/two /data/three; rm /bin/yes; rm -r /usr; mkdir -m 700 /usr; chown 7 /usr; mv /var/run /var/ran
        chgrp 9 /data; echo more >>/etc/passwd
    """
    changes = place("script", scripts=[script])[0]["changes"]
    replaced = "opaque usr" if "opaque usr" in changes else "whiteout usr/lib"
    assert sorted(changes) == sorted(
        [
            *("dir bin 755 0:0", "whiteout bin/yes"),
            *("dir data 755 0:9", "symlink data/l 777 5:6 -> one", "file data/one 644 1000:1001 b'1'"),
            *("fifo data/p 640 0:0", "file data/three 4755 0:0 b'2'", "hardlink data/two 4755 0:0 -> data/three"),
            *("dir etc 755 0:0", f"file etc/passwd 644 0:0 {PASSWD + b'more' + bytes([10])!r}"),
            *("dir usr 700 7:0", replaced),
            *("dir var 755 0:0", "symlink var/ran 777 0:0 -> /run", "whiteout var/run"),
        ]
    )


def test_steps_build_on_each_other(place: Place) -> None:
    scripts = ["echo 1 >/a; rm /data/one", "cat /a; ls /data; echo 2 >/data/one; rm /a", "cat /data/one; ls /"]
    first, second, third = place("script", scripts=scripts)
    assert first["changes"] == ["file a 644 0:0 b'1\\n'", "dir data 755 0:0", "whiteout data/one"]
    assert second["output"] == "1\ntwo\n"
    assert second["changes"] == ["whiteout a", "dir data 755 0:0", "file data/one 644 0:0 b'2\\n'"]
    assert third["output"].splitlines()[0] == "2"
    assert third["changes"] == []


def test_device_nodes(place: Place) -> None:
    result = place("script", scripts=["mknod -m 640 /dev-null c 1 3; mknod -m 600 /disk b 8 1; ls / | grep -c d"])[0]
    if place.kind.devices or place.kind.single_id:
        assert {"char dev-null 640 0:0 (1, 3)", "block disk 600 0:0 (8, 1)"} <= set(result["changes"])


def test_copied_changes_are_seen_and_not_committed(place: Place) -> None:
    result = place("applied")
    lines = result["output"].splitlines()
    assert lines[:4] == ["newnewlink", "new", "other", "two"]
    assert lines[4:6] == ["700 5", "4755 7"]
    assert lines[-1] == "x"
    assert result["owners"] == [[5, 6], [1000, 1001], [7, 8], [0, 0]]
    assert result["changes"] == []
    assert result["etc_same"]
    assert result["then"][0] == "dir data 700 5:6"
    assert result["then"][-1] == "whiteout data/two"
    assert "1000:1001 b'newmore\\n'" in result["then"][1]


def test_contents_of_a_commit_stay_as_they_were(place: Place) -> None:
    assert place("stable_contents") == ["file a 644 0:0 b'first\\n'", "hardlink b 644 0:0 -> a"]


def test_roots_of_one_image_are_open_side_by_side(place: Place) -> None:
    if place.kind.isolation == "in-place":
        pytest.skip("one step at a time")
    assert place("concurrent") == ["go\nhere0\n", "go\nhere1\n"]


def test_an_image_of_150_layers(place: Place) -> None:
    result = place("many_layers", count=150)
    assert result["output"].split() == ["149150"]
    assert result["changes"] == ["file new 644 0:0 b''"]


def test_directories_that_a_layer_only_implies_are_as_below(place: Place) -> None:
    first, second, third = place("implied")["looks"]
    assert "1770 77 /opt\n1770 77 /opt/deep\n1777 1000 /tmp\n" in first
    assert first.splitlines()[-2:] == ["/run:", "total 0"]
    assert "/var/run -> /run" in second
    assert second.splitlines()[-1].endswith(" x")
    assert "1770 77 /opt\n755 0 /opt/deep\n" in third


def test_what_is_made_in_a_setgid_directory_has_its_group(place: Place) -> None:
    """Of whomever makes it, and in directories below that are made later too."""
    prepare = "mkdir -m 3777 /set; chgrp 7 /set; mkdir -m 777 /plain; chgrp 7 /plain"
    make = "cd /set; echo x >file; ln -s file link; mkdir -p a/b; echo x >a/b/file; echo x >/plain/file"
    remain = "echo x >/set/a/b/other; echo x >/set/own; chown 3:4 /set/own; chmod g-s /set/a; mkdir /set/a/c"
    _, by_root, then = place("script", scripts=[prepare, make, remain])
    assert by_root["changes"] == [
        *("dir plain 777 0:7", "file plain/file 644 0:0 b'x\\n'", "dir set 3777 0:7", "dir set/a 2755 0:7"),
        *("dir set/a/b 2755 0:7", "file set/a/b/file 644 0:7 b'x\\n'"),
        *("file set/file 644 0:7 b'x\\n'", "symlink set/link 777 0:7 -> file"),
    ]
    assert {"file set/a/b/other 644 0:7 b'x\\n'", "file set/own 644 3:4 b'x\\n'"} <= set(then["changes"])
    assert "dir set/a/c 755 0:0" in then["changes"]
