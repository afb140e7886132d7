"""What a step's process is and has, in every place."""

from __future__ import annotations

import pytest

from tests.isolation.places import Place

pytestmark = pytest.mark.root


def output(place: Place, script: str, **fields: object) -> str:
    """What `script` says, in a step that must succeed."""
    result = place("script", scripts=[script], **fields)[0]
    assert result["code"] == 0, result
    return str(result["output"])


def test_the_chosen_isolation_is_the_one_asked_for(place: Place) -> None:
    assert place.start["chosen"] == place.kind.isolation


def test_a_pid_namespace_is_made_where_it_can_have_its_proc(place: Place) -> None:
    """A user namespace gets no other /proc where the pod's is masked: a step has the pod's, and its pid namespace."""
    if not place.kind.proc:
        pytest.skip("chroot has no /proc")
    step, own = place("pid_namespaces")
    assert (step != own) == place.kind.fresh_proc


def test_it_is_root_with_the_environment_it_was_given(place: Place) -> None:
    assert output(place, "id", env={"PATH": "/bin"}) == "uid=0(root) gid=0\n"
    lines = output(place, "env", env={"PATH": "/bin", "A": "1 ü\n2", "HOME": "/x"}).splitlines()
    assert set(lines) - {"SHLVL=1", "PWD=/"} == {"PATH=/bin", "A=1 ü", "2", "HOME=/x"}


def test_home_comes_from_passwd_unless_given(place: Place) -> None:
    assert output(place, "echo $HOME", uid=1000, gid=1001) == "/home/user\n"
    assert output(place, "echo $HOME", uid=77, gid=77) == "/\n"


def test_it_is_the_user_with_its_groups(place: Place) -> None:
    text = output(place, "id -u; id -g; id -G", uid=1000, gid=1001, groups=[1001, 50, 60])
    assert text.splitlines()[:2] == ["1000", "1001"]
    assert set(text.splitlines()[2].split()) == {"1001", "50", "60"}
    assert output(place, "id -G", uid=1000, gid=1001) == "1001\n"


def test_files_of_a_user_are_the_users(place: Place) -> None:
    result = place("script", scripts=["echo x >/tmp/x; mkdir /tmp/d; ln -s x /tmp/l"], uid=1000, gid=1001)[0]
    assert result["changes"] == [
        "dir tmp 1777 0:0",
        "dir tmp/d 755 1000:1001",
        "symlink tmp/l 777 1000:1001 -> x",
        "file tmp/x 644 1000:1001 b'x\\n'",
    ]


def test_umask_working_directory_stdin_and_hostname(place: Place) -> None:
    assert output(place, "umask; pwd; cat; wc -c </dev/stdin || true", cwd="/usr/lib").startswith("0022\n/usr/lib\n")
    if place.kind.isolation == "namespaces":
        assert output(place, "hostname") == "buildkitsandbox\n"


def test_a_missing_working_directory_is_made(place: Place) -> None:
    result = place("script", scripts=["pwd"], cwd="/not/there")[0]
    assert result["output"] == "/not/there\n"
    assert "dir not/there 755 0:0" in result["changes"]


def test_no_descriptor_but_the_three_is_open(place: Place) -> None:
    expected = "0\n1\n2\n" if place.kind.proc else ""
    assert place("descriptors") == expected


@pytest.mark.parametrize(
    ("argv", "code", "says"),
    [
        (["/bin/sh", "-c", "exit 3"], 3, ""),
        (["false"], 1, ""),
        (["/bin/sh", "-c", "kill -9 $$"], 137, ""),
        (["/bin/sh", "-c", "kill -TERM $$"], 143, ""),
        (["nonsense", "x"], 127, "nonsense: not found in PATH (/bin)"),
        (["/no/where"], 127, "/no/where: no such file or directory"),
        (["/etc/passwd"], 126, "/etc/passwd: Permission denied"),
        (["/etc"], 126, "/etc: Permission denied"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_exit_codes_are_those_of_a_shell(place: Place, argv: list[str], code: int, says: str) -> None:
    result = place("script", scripts=[""], argv=argv)[0]
    assert result["code"] == code
    assert says in result["output"]


def test_a_script_without_interpreter_is_told_from_a_missing_one(place: Place) -> None:
    make = "printf '#!/no/interpreter\\n' >/bin/a; printf 'echo x\\n' >/bin/b; chmod 755 /bin/a /bin/b"
    say = 'for f in a b; do /bin/busybox env $f; echo "$f $?"; done'
    results = place("script", scripts=[make, say])
    assert "a 127" in results[1]["output"]


def test_the_name_service_files_are_seen_and_stay_out_of_the_layer(place: Place) -> None:
    result = place("script", scripts=["cat /etc/hosts; test -e /etc/resolv.conf && ls /etc"])[0]
    if place.kind.isolation == "in-place":
        # They are mounts of the pod, which has another name.
        assert result["output"].splitlines()[-4:] == ["hostname", "hosts", "passwd", "resolv.conf"]
    else:
        assert "127.0.0.1\tbuildkitsandbox" in result["output"]
        assert result["output"].splitlines()[-3:] == ["hosts", "passwd", "resolv.conf"]
    assert result["changes"] == []


def test_what_a_step_writes_into_the_name_service_files_is_gone_with_it(place: Place) -> None:
    first, second = place(
        "script", scripts=["echo 1.2.3.4 other >>/etc/hosts; grep -c other /etc/hosts", "cat /etc/hosts"]
    )
    assert first["changes"] == second["changes"] == []
    assert "1.2.3.4" not in second["output"]


def test_doing_nothing_changes_nothing(place: Place) -> None:
    for result in place("script", scripts=["true", "cat /data/one >/dev/null", "ls -l / /etc", "exit 1"]):
        assert result["changes"] == []


def test_devices_work_and_are_not_in_the_layer(place: Place) -> None:
    script = "echo x >/dev/null; head -c 5 /dev/zero | wc -c; head -c 3 /dev/urandom | wc -c; test -c /dev/full"
    result = place("script", scripts=[script])[0]
    assert (result["output"], result["code"], result["changes"]) == ("5\n3\n", 0, [])


def test_proc_sys_and_dev_are_as_in_a_container(place: Place) -> None:
    if not place.kind.proc:
        pytest.skip("chroot has neither")
    script = """
        readlink /proc/self/exe
        for link in fd stdout ptmx; do readlink /dev/$link; done
        echo through >/dev/stdout
        test -d /dev/pts && test -c /dev/pts/ptmx && touch /dev/shm/x && echo terminals and shm
        echo x 2>/dev/null >/proc/sys/kernel/hostname || echo proc/sys is read-only
        mkdir /sys/kernel/x 2>/dev/null || echo sys is read-only
        test -e /proc/$$/stat && echo own pid
    """
    assert output(place, script).splitlines() == [
        "/bin/busybox",
        *("/proc/self/fd", "/proc/self/fd/1", "pts/ptmx", "through"),
        *("terminals and shm", "proc/sys is read-only", "sys is read-only", "own pid"),
    ]


def test_capabilities_are_those_of_a_container(place: Place) -> None:
    if not place.kind.proc:
        pytest.skip("no /proc to read them from")
    lines = output(place, "grep Cap /proc/self/status").split()
    values = dict(zip(lines[::2], lines[1::2], strict=True))
    assert values["CapEff:"] == values["CapPrm:"] == values["CapBnd:"] == "00000000a80425fb"
    assert values["CapAmb:"] == values["CapInh:"] == "0" * 16


def test_an_insecure_process_keeps_what_the_pod_has(place: Place) -> None:
    script = "mount -t tmpfs x /tmp && echo mounted; grep CapBnd /proc/self/status"
    if place.kind.isolation != "namespaces":
        with pytest.raises(AssertionError, match="security=insecure needs CAP_SYS_ADMIN"):
            place("script", scripts=[script], insecure=True)
        return
    mounted, bounding = output(place, script, insecure=True).splitlines()
    assert mounted == "mounted"
    assert int(bounding.split()[1], 16) & 1 << 21  # CAP_SYS_ADMIN


def test_mounts_cannot_be_undone(place: Place) -> None:
    if place.kind.isolation != "namespaces":
        pytest.skip("nothing is mounted")
    script = "umount /etc/hosts; umount /dev; mount -o remount,rw /sys; mount -t tmpfs x /tmp"
    result = place("script", scripts=[script])[0]
    assert result["code"] != 0
    assert result["output"].count("ermi") == 4, result  # permission denied, operation not permitted


def test_without_network_there_is_loopback_only(place: Place) -> None:
    if place.kind.isolation != "namespaces":
        with pytest.raises(AssertionError, match="network=none needs a network namespace"):
            place("script", scripts=["true"], network="none")
        return
    script = """
        ip -o link | cut -d: -f2; ip -o addr show lo
        echo over loopback | nc -l -p 5555 & sleep 0.2; nc 127.0.0.1 5555 </dev/null
    """
    text = output(place, script, network="none")
    assert text.splitlines()[0] == " lo"
    assert "127.0.0.1/8" in text
    assert text.splitlines()[-1] == "over loopback"


def test_the_network_is_the_pods_otherwise(place: Place) -> None:
    if place.kind.proc:
        with open("/proc/net/dev") as file:
            here = {line.split(":")[0].strip() for line in file if ":" in line}
        there = output(place, "grep : /proc/net/dev | cut -d: -f1").split()
        assert set(there) == here


def test_strays_are_killed(place: Place) -> None:
    assert place("strays", number=918273) == []


def test_closing_a_root_ends_its_process_with_sigterm(place: Place) -> None:
    result = place("terminated")
    assert "got TERM" in result["output"]
    assert result["outcome"] == ["exit code 7"]


def test_a_process_that_ignores_sigterm_is_killed(place: Place) -> None:
    if place.kind.patient:
        pytest.skip("takes the whole period of grace; another place stands for this one")
    assert place("stubborn")["outcome"] == ["the build was stopped"]


def test_an_exception_ends_the_process(place: Place) -> None:
    assert place("interrupted")["alive"] == ""
