"""RUN --mount: what its fields become, and which of them a type does not have."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.dockerfile import parse
from builder.dockerfile.instructions import Mount, Run
from builder.dockerfile.mounts import MountSpec, resolve
from builder.dockerfile.words import Lexer
from builder.errors import DockerfileError


def mount(text: str) -> Mount:
    (command,) = parse(f"FROM a\nRUN --mount={text} x\n".encode(), "Dockerfile").stages[0].commands
    assert isinstance(command, Run)
    return command.mounts[0]


def spec(text: str, workdir: str = "/w", **env: str) -> MountSpec:
    return resolve(mount(text), lambda value: Lexer().expand(value, env), workdir)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("target=/x", MountSpec(type="bind", target="/x")),
        ("target=x,rw,from=b,src=/s", MountSpec(type="bind", target="/w/x", from_="b", source="/s", read_only=False)),
        ("type=bind,dst=/x,readonly=false", MountSpec(type="bind", target="/x", read_only=False)),
        ("type=bind,dst=/x,rw=false", MountSpec(type="bind", target="/x")),
        ("type=bind,dst=/a,destination=/b", MountSpec(type="bind", target="/b")),
        ("TYPE=Cache,Target=/c/", MountSpec(type="cache", target="/c/", id="/c", read_only=False)),
        (
            "type=cache,target=/c,id=i,sharing=LOCKED,mode=0700,uid=1,gid=2,ro",
            MountSpec(type="cache", target="/c", id="i", sharing="locked", mode=0o700, uid=1, gid=2),
        ),
        ("type=tmpfs,target=/t,size=64m", MountSpec(type="tmpfs", target="/t", size=64 << 20, read_only=False)),
        (
            "type=tmpfs,target=/t,size=1.5GiB,from=b",
            MountSpec(type="tmpfs", target="/t", size=3 << 29, read_only=False),
        ),
        ("type=secret,id=s", MountSpec(type="secret", target="/run/secrets/s", id="s")),
        (
            "type=secret,source=a/s,required",
            MountSpec(type="secret", target="/run/secrets/s", source="a/s", id="a/s", required=True),
        ),
        ("type=secret,target=/etc/key,mode=0444", MountSpec(type="secret", target="/etc/key", id="key", mode=0o444)),
        ("type=secret,id=s,env=S", MountSpec(type="secret", target="", id="s", env="S")),
        ("type=secret,id=s,env=S,target=f", MountSpec(type="secret", target="/w/f", id="s", env="S")),
        ("type=ssh", MountSpec(type="ssh", target="", id="default")),
        ("type=ssh,id=k,required=false,target=/s", MountSpec(type="ssh", target="/s", id="k")),
        ("type=$T,target=/$D", MountSpec(type="cache", target="/d", id="/d", read_only=False)),
    ],
)
def test_fields(text: str, expected: MountSpec) -> None:
    assert spec(text, T="cache", D="d") == expected


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("typ=tmpfs,target=/x", "unexpected key 'typ'", "did you mean type?"),
        ("type=tmp,target=/x", 'unsupported mount type "tmp"', "did you mean tmpfs?"),
        ("target=/x,z", "invalid field 'z'", "z"),
        ("target=/x,mode=0755", "mode not allowed", "cache"),
        ("target=/x,size=1m", "unexpected key 'size'", "tmpfs"),
        ("target=/x,required", "unexpected key 'required'", "secret"),
        ("required,type=secret,id=s", "unexpected key 'required'", "comes first"),
        ("target=/x,sharing=shared", "invalid cache sharing", "type=cache"),
        ("type=cache,target=/x,sharing=all", "unsupported sharing value", "locked"),
        ("type=cache,target=/x,mode=9", "invalid value for mode", ""),
        ("type=cache,target=/x,uid=-1", "invalid value for uid", ""),
        ("type=cache,target=/x/..", "invalid mount target", "below the root"),
        ("type=tmpfs,target=/x,size=big", "invalid value for size", ""),
        ("type=secret", "invalid secret mount", "id=NAME"),
        ("type=secret,id=s,from=a", "should not have a from", "--secret"),
        ("type=secret,id=s,source=t", "both source and id", "id=NAME"),
        ("type=ssh,source=k", "ssh does not support source", "id=NAME"),
        ("type=ssh,required=maybe", "invalid value for required", ""),
    ],
)
def test_what_a_mount_cannot_be(text: str, message: str, hint: str) -> None:
    with pytest.raises(DockerfileError) as caught:
        spec(text)
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_without_a_target_the_working_directory_is_mounted_on_unless_it_is_the_root() -> None:
    assert spec("type=cache", workdir="/w").target == "/w"
    with pytest.raises(DockerfileError, match="invalid mount target"):
        spec("type=cache", workdir="/")


@pytest.mark.parametrize("text", ["", "'\"a'", "'\"a\"b'", "'a\"b'"])
def test_broken_csv_is_refused_when_the_file_is_parsed(text: str) -> None:
    with pytest.raises(DockerfileError, match="--mount="):
        mount(text)


def test_quoted_fields_may_hold_commas_and_quotes() -> None:
    assert mount("'" + '"target=/a,b","id=say ""x""",env=' + "'").fields == (
        ("target", "/a,b"),
        ("id", 'say "x"'),
        ("env", ""),
    )


KEYS = st.sampled_from(["type", "target", "id", "mode", "size", "required", "ro", "env"])


@given(st.lists(st.tuples(KEYS, st.text(max_size=6))))
def test_nothing_but_dockerfile_errors(fields: list[tuple[str, str]]) -> None:
    try:
        found = resolve(Mount(fields=tuple(fields), text="fuzz"), lambda value: value, "/")
    except DockerfileError:
        return
    assert found.target == "" or found.target.startswith("/")
