"""No user and no password is left in what is shown of a URL."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.urls import redacted, without_user


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://host/path?a=b#c", "https://host/path?a=b#c"),
        ("https://user@host:8443/path", "https://host:8443/path"),
        ("https://user:secret@host/path", "https://host/path"),
        ("https://user:@host", "https://host"),
        ("https://user:sec@ret@host/path", "https://host/path"),
        ("https://user:sec/ret@host/path", "https://host/path"),
        ("https://user:sec/r@et@host/path", "https://host/path"),
        ("https://user:sec?ret@host/path", "https://host/path"),
        ("https://user:sec#ret@host/path", "https://host/path"),
        ("https://user:secret@[::1]:443/path", "https://[::1]:443/path"),
        ("https://[::1]/path@v1", "https://[::1]/path@v1"),
        ("https://user:secret@[bad/path", "https://[bad/path"),
        ("https://host/path@v1/Dockerfile", "https://host/path@v1/Dockerfile"),
        ("https://host:8443/path@v1", "https://host:8443/path@v1"),
        ("https://host?who=a@b", "https://host?who=a@b"),
        ("git://user:secret@host/app.git#refs/heads/main:dir", "git://host/app.git#refs/heads/main:dir"),
        ("git@github.com:org/app.git", "git@github.com:org/app.git"),
        ("dir:///workspace/a@b", "dir:///workspace/a@b"),
        ("/workspace//a@b", "/workspace//a@b"),
        ("", ""),
    ],
)
def test_user_and_password_are_gone(url: str, expected: str) -> None:
    assert without_user(url) == expected


@given(user=st.text(st.characters(codec="utf-8", exclude_characters="/?#")), password=st.text())
def test_whatever_the_password_is(user: str, password: str) -> None:
    assert "SECRET" not in without_user(f"https://{user}:SECRET{password}@host/path")


def test_a_query_may_be_a_signature() -> None:
    assert redacted("https://user:secret@host/path?X-Amz-Signature=abc#part") == "https://host/path?..."
    assert redacted("https://host/path#part") == "https://host/path"
