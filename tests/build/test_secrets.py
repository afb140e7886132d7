"""What a build knows and the image must not: secrets, the context's place, credentials, Limpet's environment."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

import pytest

from builder.layer.index import read_index
from builder.layer.pipeline import TarStream
from builder.oci import layout
from builder.oci.media_types import layer_compression
from builder.oci.platform import Platform
from tests.build.program import Builder
from tests.servers.registry import docker_registry, missing

# Values that nothing else contains.
IN_FILE = "file-swordfish-1f7c"
IN_VARIABLE = "variable-swordfish-93ab"
MARK = "mark-of-the-environment-5d20"

isolations = pytest.mark.parametrize(
    "isolation",
    [
        "namespaces",
        pytest.param("chroot", marks=pytest.mark.skipif(os.geteuid() != 0, reason="chroot needs root")),
    ],
)


def _secrets(limpet: Builder) -> tuple[list[str], dict[str, str]]:
    """Flags and environment that give a build a secret from a file and one from a variable."""
    file = limpet.directory / "secret"
    file.write_text(f"{IN_FILE}\n")
    return [f"--secret=id=file,src={file}", "--secret=id=variable,env=GIVEN"], {"GIVEN": IN_VARIABLE}


@isolations
def test_secrets_leave_no_trace(limpet: Builder, tmp_path: Path, isolation: str) -> None:
    limpet.dockerfile(f"""\
FROM base
RUN --mount=type=secret,id=file --mount=type=secret,id=variable,env=VALUE,target=/deep/er/file \\
    test "$(cat /run/secrets/file)" = "$(printf '%s-swordfish-%s' file 1f7c)" && \\
    test "$VALUE" = "$(printf '%s-swordfish-%s' variable 93ab)" && \\
    cat /run/secrets/file /deep/er/file && echo "$VALUE" && env && echo used > /used
RUN test ! -e /run/secrets/file && test ! -e /deep/er/file && test -z "$VALUE" && echo gone > /gone
LABEL mark={MARK}
""")
    flags, env = _secrets(limpet)
    target = tmp_path / "layout"
    done = limpet(
        *flags,
        "--no-push",
        f"--isolation={isolation}",
        f"--oci-layout-path={target}",
        f"--metadata-file={tmp_path / 'metadata.json'}",
        "--verbosity=trace",
        env=env,
    )
    assert done.returncode == 0, done.stderr
    texts = {"log": done.stderr.encode(), "metadata": (tmp_path / "metadata.json").read_bytes()}
    texts |= {str(path): path.read_bytes() for path in target.rglob("*") if path.is_file()}
    image = layout.read(layout.Location(target), Platform.host()).image
    names = []
    for layer in image.layers:
        compressed = layer_compression(layer.descriptor.media_type)
        with layer.blob.open() as stream, TarStream(stream, compressed) as tar:
            texts[layer.diff_id] = b"".join(iter(lambda tar=tar: tar.read(1 << 20), b""))  # type: ignore[misc]
        with layer.blob.open() as stream:
            names += [change.path for change in read_index(stream, compression=compressed)]
    # The search reaches into layers and the configuration.
    assert any(b"gone\n" in texts[layer.diff_id] for layer in image.layers)
    assert sum(MARK.encode() in text for text in texts.values()) >= 2
    for where, text in texts.items():
        assert IN_FILE.encode() not in text, where
        assert IN_VARIABLE.encode() not in text, where
    assert "used" in names
    assert [name for name in names if name.startswith(("run/secrets", "deep"))] == []


def test_a_failing_command_does_not_tell_secrets(limpet: Builder) -> None:
    limpet.dockerfile("""\
FROM base
RUN --mount=type=secret,id=file --mount=type=secret,id=variable,env=VALUE \\
    echo "shown: $(cat /run/secrets/file) $VALUE" >&2; "$VALUE"; \\
    printf '%s' "$VALUE" | cut -c1-9 | tr -d '\\n'; sleep 0.2; printf '%s\\n' "$VALUE" | cut -c10-; exit 3
""")
    flags, env = _secrets(limpet)
    log = ""
    for form in ("text", "json"):
        done = limpet(*flags, "--no-push", "--verbosity=trace", f"--log-format={form}", env=env)
        assert done.returncode == 3, done.stderr
        log += done.stdout + done.stderr
    assert "shown: " in log
    assert IN_FILE not in log
    assert IN_VARIABLE not in log


@pytest.mark.parametrize(
    ("dockerfile", "flags", "said"),
    [
        ("RUN --mount=type=secret,id=absent,required true", [], "absent"),
        ("RUN --mount=type=secret,id=file,env=VALUE exit 4", [], "exit code 4"),
        ("COPY file-swordfish-1f7c /", [], "COPY"),
        ("RUN true", [f"--destination=a/{IN_VARIABLE.upper()}/{IN_VARIABLE}:1"], "a/"),
        ("RUN true", ["--secret=id=other,src=/no/such/file"], "/no/such/file"),
    ],
)
def test_errors_do_not_tell_secrets(limpet: Builder, dockerfile: str, flags: list[str], said: str) -> None:
    limpet.dockerfile(f"FROM base\n{dockerfile}\n")
    secrets, env = _secrets(limpet)
    flags = flags if any("destination" in flag for flag in flags) else [*flags, "--no-push"]
    done = limpet(*secrets, *flags, "--verbosity=trace", env=env)
    assert done.returncode != 0
    assert said in done.stderr.split("error: ")[1]
    assert IN_FILE not in done.stderr
    assert IN_VARIABLE not in done.stderr


# Says only where something was found: nothing that a command gets to see is ever printed. The patterns do not match
# the script itself, which stands in its shell's command line.
_SEARCH = r"""
for base in "" /proc/1/root /proc/1/cwd /proc/self/root; do
    for place in $PLACES; do if test -e "$base$place"; then echo "FOUND $base$place"; fi; done
done
for file in /proc/[0-9]*/environ; do
    if grep -q "MARK_OF_[L]IMPET" $file 2>/dev/null; then echo "FOUND environment"; fi
done
for file in /proc/[0-9]*/cmdline; do
    if grep -q "[-]-work-dir=" $file 2>/dev/null; then echo "FOUND command line"; fi
done
for descriptor in /proc/self/fd/*; do
    case "$(readlink $descriptor)" in */only-in-the-context|*/build/*) echo "FOUND descriptor";; esac
done
for name in MARK_OF_LIMPET GIVEN DOCKER_CONFIG; do
    if env | grep -q "^$name="; then echo "FOUND variable $name"; fi
done
find / -path /proc -prune -o -path /sys -prune -o -name "only-in-the-contex[t]" -exec echo FOUND a file ";"
echo searched
"""


@isolations
def test_a_command_finds_nothing_of_limpet(limpet: Builder, tmp_path: Path, isolation: str) -> None:
    """The first stage searches; in the second there is something to find, which shows that the search can find."""
    if missing():
        pytest.skip(missing())
    flags, env = _secrets(limpet)
    config = limpet.directory / "docker"
    places = [limpet.context, limpet.work, limpet.directory / "secret", config / "config.json"]
    run = f"<<'END'\nPLACES='{' '.join(map(str, places))}'{_SEARCH}END\n"
    limpet.dockerfile(
        f"FROM base AS search\nRUN {run}\n"
        "FROM base AS control\nENV MARK_OF_LIMPET=1 GIVEN=1 DOCKER_CONFIG=1\n"
        f"RUN --mount=type=bind,target={limpet.context} exec 7<{limpet.context}/only-in-the-context; "
        f"sh -c 'sleep 100' --work-dir=x & sh {run}\n"
        "FROM scratch\nCOPY --from=search /etc /a\nCOPY --from=control /etc /b\n",
        **{"only-in-the-context": ""},
    )
    with docker_registry(tmp_path / "closed", users={"alice": "password-of-alice"}) as closed:
        auth = base64.b64encode(b"alice:password-of-alice").decode()
        config.mkdir()
        (config / "config.json").write_text(json.dumps({"auths": {closed.host: {"auth": auth}}}))
        done = limpet(
            *flags,
            f"--destination={closed.host}/hidden:1",
            f"--isolation={isolation}",
            "--verbosity=trace",
            env={**env, "DOCKER_CONFIG": str(config), "MARK_OF_LIMPET": MARK},
        )
    assert done.returncode == 0, done.stderr
    assert _output(done.stderr, "search") == ["searched"]
    control = {f"FOUND {limpet.context}", "FOUND a file", "searched"}
    control |= {f"FOUND variable {name}" for name in ("MARK_OF_LIMPET", "GIVEN", "DOCKER_CONFIG")}
    if isolation == "namespaces":  # chroot has no /proc to search
        control |= {"FOUND environment", "FOUND command line", "FOUND descriptor"}
    assert control <= set(_output(done.stderr, "control"))
    for text in ("password-of-alice", auth, MARK, IN_FILE, IN_VARIABLE):
        assert text not in done.stderr


def _output(log: str, stage: str) -> list[str]:
    """What the commands of a stage printed."""
    return [line.partition("] ")[2] for line in log.splitlines() if line.startswith(f"[{stage} ")]
