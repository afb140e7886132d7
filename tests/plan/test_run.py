"""RUN: what is executed, with which environment and which mounts."""

from __future__ import annotations

import pytest

from builder.errors import DockerfileError
from builder.plan import NETWORK_HOST, SECURITY_INSECURE
from builder.steps.step import (
    BindMount,
    CacheMount,
    FromContext,
    FromImage,
    FromNamedContext,
    FromStage,
    RunMount,
    RunStep,
    SecretMount,
    SshMount,
    TmpfsMount,
)
from tests.plan.planning import base_image, last_step, plan_of

SH = ("/bin/sh", "-c")


def run_step(text: str, **options: object) -> RunStep:
    step = last_step(text, **options)
    assert isinstance(step, RunStep)
    return step


def mounts(text: str, **options: object) -> tuple[RunMount, ...]:
    return run_step(f"FROM a AS st\nFROM a\nWORKDIR /w\nENV T=/tt N=5\nRUN {text} x", **options).mounts


@pytest.mark.parametrize(
    ("command", "argv"),
    [
        ("RUN echo $X", (*SH, "echo $X")),
        ('RUN ["echo", "$X"]', ("echo", "$X")),
        ("RUN <<EOF\necho $X\nEOF", (*SH, "echo $X\n")),
        ("RUN <<-'EOF'\n\techo\n\t\tx\nEOF", (*SH, "echo\nx\n")),
        ("RUN <<EOF python3\nprint(1)\nEOF", (*SH, "<<EOF python3\nprint(1)\nEOF")),
        ("RUN <<-A cat && <<B cat\n\t1\n\tA\n2\nB", (*SH, "<<-A cat && <<B cat\n\t1\nA\n2\nB")),
        ("RUN <<EOF > /f\nx\nEOF", (*SH, "<<EOF > /f\nx\nEOF")),
        ('SHELL ["/bin/bash", "-ec"]\nRUN x', ("/bin/bash", "-ec", "x")),
        ("RUN", (*SH, "")),
    ],
)
def test_command_lines(command: str, argv: tuple[str, ...]) -> None:
    step = run_step(f"FROM a\nENV X=1\n{command}")
    assert step.argv == argv
    assert not step.pipes
    assert step.history is not None
    assert step.history.created_by == f"RUN {' '.join(argv)} # buildkit"


@pytest.mark.parametrize("mark", ["<<", "<<-"])
def test_a_script_with_an_interpreter_lies_in_a_file(mark: str) -> None:
    step = run_step(f"FROM a\nRUN {mark}script\n\t#!/usr/bin/awk -f\n\tBEGIN {{}}\nscript")
    if mark == "<<":
        assert step.argv == (*SH, "\t#!/usr/bin/awk -f\n\tBEGIN {}\n")
    else:
        assert step.argv == (*SH, "/dev/pipes/script")
        assert step.pipes == {"script": "#!/usr/bin/awk -f\nBEGIN {}\n"}


def test_nothing_to_run() -> None:
    with pytest.raises(DockerfileError, match="nothing to run"):
        run_step("FROM a\nRUN []")


def test_user_and_working_directory_are_those_of_the_moment() -> None:
    text = "FROM a\nUSER u:g\nWORKDIR /w\nRUN x\nUSER v"
    step = plan_of(text).stage(0).steps[2]
    assert isinstance(step, RunStep)
    assert (step.user, step.cwd) == ("u:g", "/w")
    assert run_step("FROM a\nRUN x").cwd == "/"


def test_a_secret_value_is_never_shown() -> None:
    step = run_step("FROM a\nARG TOKEN\nRUN curl $TOKEN", build_args={"TOKEN": "s3cret"})
    assert step.text == "RUN curl $TOKEN"
    assert "s3cret" not in repr(step).replace(repr(step.history), "")


@pytest.mark.parametrize(
    ("flag", "entitlement"),
    [
        ("--network=host", NETWORK_HOST),
        ("--security=insecure", SECURITY_INSECURE),
    ],
)
def test_more_than_usual_must_be_allowed(flag: str, entitlement: str) -> None:
    text = f"FROM a\nRUN {flag} x"
    with pytest.raises(DockerfileError, match=flag) as caught:
        plan_of(text)
    assert caught.value.location is not None and caught.value.location.start == 2
    assert f"--allow={entitlement}" in caught.value.hint
    step = run_step(text, allow=frozenset({entitlement}))
    assert (step.network, step.security) != ("default", "sandbox")


def test_devices_are_refused() -> None:
    with pytest.raises(DockerfileError, match=r"--device=vendor\.com/class=name") as caught:
        plan_of("FROM a\nRUN --device=vendor.com/class=name x")
    assert caught.value.location is not None and caught.value.location.start == 2


def test_no_network_is_always_allowed() -> None:
    assert run_step("FROM a\nRUN --network=none x").network == "none"
    assert run_step("FROM a\nRUN --security=sandbox x").security == "sandbox"


class TestMounts:
    def test_bind(self) -> None:
        assert mounts("--mount=target=/x") == (BindMount(origin=FromContext(), source="/", target="/x"),)
        assert mounts("--mount=type=bind,src=../a/,dst=x,rw,from=st") == (
            BindMount(origin=FromStage(0), source="/a", target="/w/x", writable=True),
        )
        assert mounts("--mount=from=img:1,target=$T") == (
            BindMount(origin=FromImage("docker.io/library/img:1"), source="/", target="/tt"),
        )
        assert mounts("--mount=from=dir,target=/x", named_contexts={"dir": "/d"}) == (
            BindMount(origin=FromNamedContext("dir"), source="/", target="/x"),
        )

    def test_cache(self) -> None:
        assert mounts("--mount=type=cache,target=/c/") == (CacheMount(id="/c", target="/c/", source="/"),)
        assert mounts("--mount=type=cache,id=k,target=c,sharing=locked,ro,mode=1777,uid=$N,gid=2") == (
            CacheMount(
                id="k",
                target="/w/c",
                sharing="locked",
                source="/",
                read_only=True,
                mode=0o1777,
                uid=5,
                gid=2,
            ),
        )
        assert mounts("--mount=type=cache,target=/c,from=st,source=s") == (
            CacheMount(id="/c", target="/c", origin=FromStage(0), source="/s"),
        )
        assert mounts("--mount=type=cache,target=/c,from=scratch") == mounts("--mount=type=cache,target=/c")

    def test_a_namespace_for_caches(self) -> None:
        (cache,) = mounts("--mount=type=cache,target=/c", build_args={"BUILDKIT_CACHE_MOUNT_NS": "team"})
        assert isinstance(cache, CacheMount) and cache.id == "team//c"

    def test_tmpfs(self) -> None:
        assert mounts("--mount=type=tmpfs,target=/t,size=64m") == (TmpfsMount(target="/t", size=64 << 20),)

    def test_secret(self) -> None:
        assert mounts("--mount=type=secret,id=a/b") == (SecretMount(id="a/b", target="/run/secrets/b"),)
        assert mounts("--mount=type=secret,id=s,env=TOKEN,required") == (
            SecretMount(id="s", target="", env="TOKEN", required=True),
        )
        assert mounts("--mount=type=secret,id=s,env=E,target=k,mode=0444,uid=1,gid=2") == (
            SecretMount(id="s", target="/w/k", env="E", mode=0o444, uid=1, gid=2),
        )

    def test_agents_are_numbered_and_the_first_is_in_the_environment(self) -> None:
        step = run_step("FROM a\nRUN --mount=type=ssh --mount=type=ssh,id=k,target=/s --mount=type=ssh,id=l x")
        assert step.mounts == (
            SshMount(id="default", target="/run/buildkit/ssh_agent.0"),
            SshMount(id="k", target="/s"),
            SshMount(id="l", target="/run/buildkit/ssh_agent.2"),
        )
        assert step.env["SSH_AUTH_SOCK"] == "/run/buildkit/ssh_agent.0"

    def test_the_image_may_have_its_own_agent(self) -> None:
        step = run_step("FROM a\nENV SSH_AUTH_SOCK=/mine\nRUN --mount=type=ssh x")
        assert step.env["SSH_AUTH_SOCK"] == "/mine"

    @pytest.mark.parametrize(
        "text",
        ["type=bind,target=/", "type=secret", "type=tmpfs,target=/t,size=x", "typ=bind", "type=cache,target=.."],
    )
    def test_a_bad_one_names_the_line(self, text: str) -> None:
        with pytest.raises(DockerfileError) as caught:
            mounts(f"--mount={text}")
        assert caught.value.location is not None and caught.value.location.start == 5
        assert f"--mount={text}" in caught.value.message


def test_the_shell_of_the_base() -> None:
    images = {"docker.io/library/a:latest": base_image(shell=("/bin/zsh", "-c"))}
    step = last_step("FROM a\nRUN x", images)
    assert isinstance(step, RunStep) and step.argv == ("/bin/zsh", "-c", "x")
