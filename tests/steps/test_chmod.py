"""--chmod, compared with the chmod program where both mean the same."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builder.errors import DockerfileError, Location
from builder.steps import chmod


@pytest.mark.parametrize(
    ("text", "mode", "directory", "expected"),
    [
        ("0600", 0o755, True, 0o600),
        ("4755", 0o600, False, 0o4755),
        ("0", 0o777, False, 0),
        ("u+x", 0o644, False, 0o744),
        ("a+rX", 0o600, False, 0o644),
        ("a+rX", 0o700, False, 0o755),
        ("a+rX", 0o600, True, 0o755),
        ("u=rwX,go=rX", 0o600, True, 0o755),
        ("u=rwX,go=rX", 0o640, False, 0o644),
        ("go=u", 0o640, False, 0o666),
        ("o-g", 0o666, False, 0o660),
        ("+w", 0o444, False, 0o644),  # nobody named: the umask holds
        ("=", 0o777, False, 0),
        ("==", 0o4777, False, 0),
        ("u+s", 0o755, False, 0o4755),
        ("g+s", 0o755, True, 0o2755),
        ("o+s", 0o755, False, 0o755),
        ("+t", 0o755, True, 0o1755),
        ("u=rw", 0o4755, False, 0o655),
        ("u-x+w", 0o500, False, 0o600),
        ("a=r,u+w", 0o777, False, 0o644),
    ],
)
def test_apply(text: str, mode: int, directory: bool, expected: int) -> None:
    assert oct(chmod.parse(text).apply(mode, directory=directory)) == oct(expected)


@pytest.mark.parametrize("text", ["", "8", "64a", "10000", "foo", "u", "u+", "u+y", "u+x,", ",u+x", "+755", "0o755"])
def test_what_is_no_mode_is_an_error(text: str) -> None:
    if text == "u+":  # no permission is one
        assert chmod.parse(text).apply(0o640, directory=False) == 0o640
        return
    with pytest.raises(DockerfileError) as failure:
        chmod.parse(text, Location("Dockerfile", 7, 7))
    assert failure.value.location == Location("Dockerfile", 7, 7)
    assert "--chmod=" in failure.value.hint


def test_directories_made_on_the_way() -> None:
    assert chmod.parse("4711").created_directories == 0o711
    assert chmod.parse("u=rwx").created_directories == 0o755


CLAUSES = st.from_regex(r"[ugoa]{1,3}([-+=](r?w?x?|[ugo]))", fullmatch=True)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(CLAUSES, min_size=1, max_size=3).map(",".join), st.integers(0, 0o777))
def test_symbolic_modes_are_those_of_the_program(tmp_path: Path, text: str, mode: int) -> None:
    path = tmp_path / "file"
    path.touch()
    path.chmod(mode)
    subprocess.run(["chmod", "--", text, str(path)], check=True)
    assert oct(chmod.parse(text).apply(mode, directory=False)) == oct(os.stat(path).st_mode & 0o7777)
