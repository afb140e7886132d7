"""Image names, by Docker's rules."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from builder.errors import UsageError
from builder.oci.reference import Reference, canonical_registry

DIGEST = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "qualified"),
    [
        ("foo", "index.docker.io/library/foo:latest"),
        ("foo:1.2", "index.docker.io/library/foo:1.2"),
        ("docker.io/foo", "index.docker.io/library/foo:latest"),
        ("index.docker.io/library/foo", "index.docker.io/library/foo:latest"),
        ("me/foo", "index.docker.io/me/foo:latest"),
        ("a/b/c", "index.docker.io/a/b/c:latest"),
        ("localhost/foo", "localhost/foo:latest"),
        ("localhost:5000/foo", "localhost:5000/foo:latest"),
        ("registry.example.com/team/app:v1", "registry.example.com/team/app:v1"),
        ("host:443/app", "host:443/app:latest"),
        ("Host/app", "Host/app:latest"),
        ("[::1]:5000/app:x", "[::1]:5000/app:x"),
        (f"foo@{DIGEST}", f"index.docker.io/library/foo@{DIGEST}"),
        (f"r.example/app:1@{DIGEST}", f"r.example/app:1@{DIGEST}"),
        ("r.example/a__b.c-d---e", "r.example/a__b.c-d---e:latest"),
        ("foo:" + "a" * 128, "index.docker.io/library/foo:" + "a" * 128),
    ],
)
def test_normalises(text: str, qualified: str) -> None:
    reference = Reference.parse(text)
    assert reference.qualified == qualified
    assert reference == Reference.parse(qualified) == Reference.parse(str(reference))


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":tag",
        "foo:",
        "foo:-x",
        "foo:" + "a" * 129,
        "FOO",
        "example.com/FOO",
        "foo/",
        "/foo",
        "a//b",
        "foo bar",
        "foo@sha256:12",
        "foo@md5:" + "0" * 32,
        "http://example.com/foo",
        "exa_mple.com/foo",
        "example.com:port/foo",
        "0123456789abcdef" * 4,
        "r.example/" + "a" * 256,
        "foo:1:2",
    ],
)
def test_refuses(text: str) -> None:
    with pytest.raises(UsageError, match="invalid image reference"):
        Reference.parse(text)


def test_upper_case_is_explained() -> None:
    with pytest.raises(UsageError, match="lower case"):
        Reference.parse("example.com/App")


def test_strict_wants_everything_written() -> None:
    assert Reference.parse("r.example/app:1", strict=True).tag == "1"
    for text in ("app:1", "me/app:1", "r.example/app"):
        with pytest.raises(UsageError, match="must be given"):
            Reference.parse(text, strict=True)


def test_forms() -> None:
    hub = Reference.parse("debian:12")
    assert (str(hub), hub.familiar, hub.name) == (
        "docker.io/library/debian:12",
        "debian:12",
        "index.docker.io/library/debian",
    )
    assert hub.api_host == "registry-1.docker.io"
    own = Reference.parse("r.example:5000/app")
    assert str(own) == own.familiar == own.qualified == "r.example:5000/app:latest"
    assert own.api_host == "r.example:5000"
    assert own.with_digest(DIGEST).identifier == DIGEST
    assert own.with_digest(DIGEST).with_tag("2").qualified == "r.example:5000/app:2"


@pytest.mark.parametrize("text", ["docker.io/library/a/b", "docker.io/library/library/x", "docker.io/a.b/c"])
def test_a_familiar_form_never_names_another_image(text: str) -> None:
    reference = Reference.parse(text)
    assert Reference.parse(reference.familiar) == reference


def test_canonical_registry() -> None:
    assert {canonical_registry(host) for host in ("docker.io", "index.docker.io", "registry-1.docker.io")} == {
        "index.docker.io"
    }
    with pytest.raises(UsageError):
        canonical_registry("https://example.com")


_component = st.from_regex(r"[a-z0-9]{1,8}(?:(?:[._]|__|-{1,3})[a-z0-9]{1,8}){0,2}", fullmatch=True)
_host = st.from_regex(r"[a-z0-9]{1,8}(?:\.[a-z]{1,5}){1,2}(?::[0-9]{1,5})?", fullmatch=True)
_tag = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True)


@given(st.none() | _host, st.lists(_component, min_size=1, max_size=4), st.none() | _tag, st.booleans())
def test_every_form_names_the_same_image(host: str | None, path: list[str], tag: str | None, digest: bool) -> None:
    assume(host or len(path) == 1 or "." not in path[0])  # else the first component is a host
    text = "/".join(filter(None, (host, *path))) + (f":{tag}" if tag else "") + (f"@{DIGEST}" if digest else "")
    reference = Reference.parse(text)
    assert Reference.parse(str(reference)) == reference
    assert Reference.parse(reference.qualified, strict=True) == reference
    assert Reference.parse(reference.familiar) == reference
