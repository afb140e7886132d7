"""What is done in an isolation; each function returns a JSON value for a test to judge."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import socket
import subprocess
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from builder.errors import CommandFailed, ImageError, IsolationError
from builder.isolation import AgentSocket, Bind, Cache, Isolation, Process, Root, SecretFile, Tmpfs
from builder.isolation.enter import id_map
from builder.isolation.owners import Owners, RealOwners, RecordedOwners
from builder.layer.format import LayerFormat
from builder.layer.unpack import unpack
from builder.layer.writer import write_layer
from builder.oci.blobs import MemoryBlob
from builder.oci.descriptor import Descriptor, sha256
from builder.oci.image import Image, Layer
from builder.rootfs.directory import DirectoryTree
from builder.rootfs.entry import BytesContent, Change, Entry, FileType, Opaque, Whiteout
from tests.images import image as make_image
from tests.rootfs.trees import comparable

TAR = "application/vnd.oci.image.layer.v1.tar"
BUSYBOX = next((path for path in ("/bin/busybox", "/limpet/bin/busybox") if os.path.exists(path)), "")
PASSWD = b"root:x:0:0::/root:/bin/sh\nuser:x:1000:1001::/home/user:/bin/sh\n"


@dataclass(frozen=True)
class Setting:
    isolation: Isolation
    work: Path

    def owners(self) -> Owners:
        """Owners as the isolation sees them, for directories of the test's own."""
        return RecordedOwners() if sum(count for _, _, count in id_map("uid_map")) == 1 else RealOwners()


def busybox_layer() -> bytes:
    """A root with busybox: the tar of one layer. No /proc, /sys, /dev and no resolv.conf."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:

        def add(name: str, kind: bytes = tarfile.REGTYPE, mode: int = 0o755, data: bytes = b"", link: str = "") -> None:
            member = tarfile.TarInfo(name)
            member.type, member.mode, member.size, member.linkname, member.mtime = kind, mode, len(data), link, 1000
            archive.addfile(member, io.BytesIO(data))

        for name in (".", "bin", "etc", "root", "home", "home/user", "usr", "usr/lib", "data"):
            add(name, tarfile.DIRTYPE)
        add("tmp", tarfile.DIRTYPE, 0o1777)
        add("bin/busybox", data=Path(BUSYBOX).read_bytes())
        for applet in subprocess.check_output([BUSYBOX, "--list"], text=True).split():
            if applet != "busybox":
                add(f"bin/{applet}", tarfile.SYMTYPE, link="busybox")
        add("etc/passwd", mode=0o644, data=PASSWD)
        add("data/one", mode=0o644, data=b"1")
        add("data/two", mode=0o644, data=b"2")
        add("run", tarfile.DIRTYPE)
        add("var", tarfile.DIRTYPE)
        add("var/run", tarfile.SYMTYPE, link="/run")
    return buffer.getvalue()


def make_layer(data: bytes) -> Layer:
    return Layer(Descriptor.of(TAR, data), sha256(data), MemoryBlob(data))


def busybox(*more: bytes) -> Image:
    return make_image(*(make_layer(data) for data in (busybox_layer(), *more)))


def run(root: Root, script: str, **fields: Any) -> dict[str, Any]:
    """Run `script` by sh: its output and exit code."""
    output: list[bytes] = []
    argv = fields.pop("argv", ("/bin/sh", "-c", script))
    env = fields.pop("env", {"PATH": "/bin"})
    code = 0
    try:
        root.run(Process(argv, env, output=output.append, **fields))
    except CommandFailed as error:
        code = error.code
    return {"output": b"".join(output).decode(errors="backslashreplace"), "code": code}


def describe(changes: Iterable[Change]) -> list[str]:
    """Changes as short texts; FILEs with their content."""
    texts = []
    for change in changes:
        if isinstance(change, Whiteout):
            texts.append(f"whiteout {change.path}")
        elif isinstance(change, Opaque):
            texts.append(f"opaque {change.path}")
        else:
            text = f"{change.type.value} {change.path} {change.mode:o} {change.uid}:{change.gid}"
            if change.type in (FileType.SYMLINK, FileType.HARDLINK):
                text += f" -> {change.target}"
            elif change.content is not None:
                with change.content.open() as stream:
                    text += f" {stream.read(100)!r}"
            elif change.device != (0, 0):
                text += f" {change.device}"
            texts.append(text)
    return texts


# ---- one process


def script(setting: Setting, scripts: list[str], **fields: Any) -> list[dict[str, Any]]:
    """Each script as a step of its own, with what it changed."""
    results = []
    for name in ("groups", "argv"):
        if name in fields:
            fields[name] = tuple(fields[name])
    with setting.isolation.open_root(busybox()) as root:
        for text in scripts:
            result = run(root, text, **fields)
            results.append({**result, "changes": describe(root.commit())})
    return results


def strays(setting: Setting, number: int) -> list[str]:
    """Command lines that still have `number` in them when the step has ended."""
    with setting.isolation.open_root(busybox()) as root:
        text = f"(sleep {number} &); setsid sleep {number} & nohup sleep {number} >/dev/null 2>&1 & exit 0"
        assert run(root, text)["code"] == 0
        found = []
        for process in Path("/proc").iterdir():
            try:
                line = (process / "cmdline").read_bytes()
            except OSError:
                continue
            if f"\0{number}\0".encode() in line:
                found.append(line.decode())
    return found


def terminated(setting: Setting) -> dict[str, Any]:
    """The root is closed by another thread while a step runs, which traps SIGTERM."""
    return _closed_meanwhile(setting, "trap 'echo got TERM; exit 7' TERM; echo ready; while :; do sleep 0.05; done")


def stubborn(setting: Setting) -> dict[str, Any]:
    """As `terminated`, with a step that ignores SIGTERM."""
    return _closed_meanwhile(setting, "trap '' TERM; echo ready; while :; do sleep 1; done")


def _closed_meanwhile(setting: Setting, text: str) -> dict[str, Any]:
    """What a step says, and how it ends, whose root is closed once it has said something."""
    output: list[bytes] = []
    told = threading.Event()

    def listen(data: bytes) -> None:
        output.append(data)
        told.set()

    outcome: list[str] = []
    context = setting.isolation.open_root(busybox())
    root = context.__enter__()

    def work() -> None:
        try:
            root.run(Process(("/bin/sh", "-c", text), {"PATH": "/bin"}, output=listen))
        except (CommandFailed, IsolationError) as error:
            outcome.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    told.wait()
    context.__exit__(None, None, None)
    thread.join()
    return {"output": b"".join(output).decode(), "outcome": outcome}


# ---- mounts


def mounts(setting: Setting) -> dict[str, Any]:
    """One step with every kind of mount, another to see that nothing is left."""
    outside = setting.work / "outside"
    (outside / "context").mkdir(parents=True)
    (outside / "context/file").write_bytes(b"from the context\n")
    (outside / "single").write_bytes(b"one file\n")
    cache = outside / "cache"
    cache.mkdir()
    (cache / "kept").write_bytes(b"before\n")
    agent = outside / "agent"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(agent))
    listener.listen()
    owner = {"uid": 1000, "gid": 1001, "mode": 0o440}
    process_mounts = (
        Bind(outside / "context", "/bound"),
        Bind(outside / "context", "/discarded", writable=True),
        Bind(outside / "single", "/etc/single"),
        Bind(outside / "single", "/etc/copied", writable=True),
        Cache(cache, "/var/cache/thing"),
        Cache(cache, "/var/cache/read-only", read_only=True) if setting.isolation.name == "namespaces" else Tmpfs("/x"),
        Tmpfs("/scratch", 1 << 20),
        Tmpfs("/bin/inner/deeper"),
        Bind(outside / "single", "/scratch/inside"),
        SecretFile("/run/secrets/token", b"hunter2\n"),
        SecretFile("/home/user/secret", b"for the user\n", **owner),
        AgentSocket(agent, "/run/buildkit/ssh_agent.0", 1000, 1001, 0o600),
    )
    text = """
        cat /bound/file /discarded/file /etc/single /etc/copied /var/cache/thing/kept /scratch/inside
        cat /run/secrets/token /var/run/secrets/token /home/user/secret
        stat -c '%a %u:%g %F' /home/user/secret /run/secrets/token /run/buildkit/ssh_agent.0
        echo x >/bound/file || echo bound is read-only
        echo x >/etc/single || echo single is read-only
        echo x >/run/secrets/token || echo secret is read-only
        echo x >/var/cache/read-only/kept || echo cache is read-only
        echo changed >/discarded/file; rm -f /discarded/nothing; echo new >/discarded/new
        echo changed >/etc/copied
        echo after >/var/cache/thing/made
        echo big >/scratch/big; echo small >/bin/inner/deeper/small
        echo result >/result
    """
    try:
        with setting.isolation.open_root(busybox()) as root:
            first = run(root, text, mounts=process_mounts)
            changed = describe(root.commit())
            second = run(root, "ls -d /bound /discarded /etc/* /var/* /scratch /bin/inner /run/* /home/user/*")
            left = describe(root.commit())
        return {
            "output": first["output"],
            "changes": changed,
            "then": second["output"],
            "then_changes": left,
            "context": {path.name: path.read_text() for path in (outside / "context").iterdir()},
            "single": (outside / "single").read_text(),
            "cache": {path.name: path.read_text() for path in cache.iterdir()},
        }
    finally:
        listener.close()
        subprocess.run(["rm", "-r", str(outside)], check=True)


def agent(setting: Setting) -> str:
    """What a program in the step gets from the agent: busybox has no unix socket client, so a real one listens."""
    with tempfile.TemporaryDirectory(dir=setting.work) as outside:
        path = Path(outside) / "agent"
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            client, _ = listener.accept()
            with client:
                client.sendall(b"agent says " + client.recv(100))

        threading.Thread(target=serve, daemon=True).start()
        received: list[bytes] = []
        with setting.isolation.open_root(busybox()) as root:

            def connect(_: bytes) -> None:
                # The step waits: its socket is reached from here, as the step would reach it.
                with socket.socket(socket.AF_UNIX) as client:
                    client.connect(_socket_below(root.path.parent))
                    client.sendall(b"hello")
                    client.shutdown(socket.SHUT_WR)
                    received.append(client.recv(100))

            mount = AgentSocket(path, "/agent", 0, 0, 0o600)
            text = "test -S /agent && echo is a socket && sleep 0.5"
            root.run(Process(("/bin/sh", "-c", text), {"PATH": "/bin"}, mounts=(mount,), output=connect))
        listener.close()
        return received[0].decode()


def _socket_below(directory: Path) -> str:
    found = [path for path in (directory / "run").rglob("agent") if path.is_socket()]
    return os.path.relpath(found[0])


def failing_secret(setting: Setting) -> dict[str, Any]:
    """A step with a secret that fails: nothing of it is on the disk afterwards."""
    secret = "secret-" + hashlib.sha256(os.urandom(8)).hexdigest()
    with setting.isolation.open_root(busybox()) as root:
        result = run(root, "cat /s; exit 9", mounts=(SecretFile("/s", secret.encode()),))
        changes = describe(root.commit())
        found = subprocess.run(["grep", "-rl", secret, str(setting.work)], capture_output=True, text=True).stdout
    return {"code": result["code"], "seen": secret in result["output"], "changes": changes, "found": found}


# ---- hiding


def hiding(setting: Setting) -> dict[str, Any]:
    """What a step finds when it looks for Limpet: in every process's /proc directory, and by signals."""
    marker = setting.work / "context-marker"
    marker.write_text("a file of the context")
    child = subprocess.Popen(["sleep", "1000"], env={**os.environ, "TOKEN": "password-in-a-childs-environment"})
    text = f"""
        for p in /proc/[0-9]*; do
            grep -l password-in $p/environ 2>/dev/null
            cat $p/root{marker} $p/cwd/{marker.name} 2>/dev/null
            ls $p/root{setting.work} $p/fd/ 2>/dev/null | grep context-marker
            strings $p/mem 2>/dev/null
        done
        cat {marker} 2>/dev/null
        kill -0 {os.getpid()} 2>/dev/null && echo can signal limpet
        kill -9 {child.pid} 2>/dev/null && echo killed a child of limpet
        env
        echo done
    """
    try:
        control = subprocess.run([BUSYBOX, "sh", "-c", text.replace("kill", ":")], capture_output=True, text=True)
        with setting.isolation.open_root(busybox()) as root:
            result = run(root, text)
            other = run(root, text, uid=1000, gid=1001)
        return {
            "control": control.stdout,
            "root": result["output"],
            "user": other["output"],
            "alive": child.poll() is None,
        }
    finally:
        child.kill()
        child.wait()
        marker.unlink()


# Looks around by system calls that no shell has: prints one line for each thing that it finds.
_LOOK_AROUND = """
import ctypes, errno, os, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
if os.uname().machine == "x86_64":
    ADD_KEY, KEYCTL = 248, 250
    key = libc.syscall(KEYCTL, 10, -3, b"user", b"limpet-test", 0)  # search the session's keyring
    if key >= 0:
        print("key of the session")
    libc.syscall(KEYCTL, 8, -4, -3)  # link the user's keyring to it
    if libc.syscall(ADD_KEY, b"user", b"from-a-step", b"x", 1, -4) >= 0 or ctypes.get_errno() != errno.EPERM:
        print("keyring of the user")
with socket.socket(socket.AF_UNIX) as client:
    try:
        client.connect("\\0" + sys.argv[1])
        print("abstract socket")
    except OSError:
        pass
for name in sorted(os.listdir("/proc/self/fd"), key=int)[3:-1]:
    print("descriptor", name)
if any(line.rstrip()[-2:] != ":/" for line in open("/proc/self/cgroup")):
    print("names of control groups")
for pid in filter(str.isdigit, os.listdir("/proc")):
    if pid == "1" or int(pid) in map(int, sys.argv[2:]):
        for name in ("environ", "mem", "maps", "auxv"):
            try:
                open(f"/proc/{pid}/{name}", "rb").read(1)
                print("read", name, "of", pid)
            except OSError as error:
                if error.errno == errno.EIO:
                    print("opened", name, "of", pid)
        for name in ("root", "cwd", "exe", "fd/0", "ns/mnt"):
            try:
                os.readlink(f"/proc/{pid}/{name}")
                print("followed", name, "of", pid)
            except OSError:
                pass
        if libc.ptrace(0x4206, int(pid), 0, 0) == 0:  # PTRACE_SEIZE
            print("traces", pid)
for path in ("/sys/kernel/debug", "/sys/kernel/tracing", "/sys/fs/bpf", "/sys/firmware", "/dev/shm", "/dev/mqueue"):
    if os.path.isdir(path) and os.listdir(path):
        print("entries of", path)
print("done")
"""


def surroundings(setting: Setting, uid: int) -> list[str]:
    """What a step finds around itself: keys, sockets, descriptors, memory of Limpet and of the sandbox."""
    name = f"limpet-test-{os.getpid()}"
    mounts = (Bind(Path("/usr"), "/usr"), SecretFile("/look.py", _LOOK_AROUND.encode(), mode=0o444))
    links = "".join(f"ln -s usr/{name} /{name}; " for name in ("lib", "lib64"))
    with socket.socket(socket.AF_UNIX) as listener, setting.isolation.open_root(busybox()) as root:
        listener.bind(f"\0{name}")
        listener.listen()
        assert run(root, f"{links} chmod 755 /")["code"] == 0
        argv = ("/usr/bin/python3", "-I", "/look.py", name, str(os.getpid()))
        found = run(root, "", argv=argv, mounts=mounts, uid=uid, gid=uid, env={"PATH": "/usr/bin"})
    return str(found["output"]).splitlines()


def secret_of_another_step(setting: Setting) -> dict[str, Any]:
    """One step looks, in every other process's root, for the secret of another that runs at the same time."""
    ready, finish = threading.Event(), threading.Event()
    looked: list[str] = []
    with setting.isolation.open_root(busybox()) as one, setting.isolation.open_root(busybox()) as two:

        def hold() -> None:
            mount = SecretFile("/secret", b"only-for-one")
            text = "echo ready; while ! test -e /tmp/finish; do sleep 0.05; done"
            one.run(Process(("/bin/sh", "-c", text), {"PATH": "/bin"}, mounts=(mount,), output=lambda _: ready.set()))
            finish.set()

        thread = threading.Thread(target=hold)
        thread.start()
        ready.wait()
        looked.append(run(two, "cat /proc/[0-9]*/root/secret 2>/dev/null; echo looked")["output"])
        (one.path / "tmp/finish").touch()
        thread.join()
    return {"looked": looked[0], "finished": finish.is_set()}


# ---- roots


def concurrent(setting: Setting) -> list[str]:
    """Two steps at once in two roots of one image: each waits for the other's file, which Limpet carries over."""
    outputs = ["", ""]
    with setting.isolation.open_root(busybox()) as one, setting.isolation.open_root(busybox()) as two:

        def work(number: int, root: Root) -> None:
            text = f"touch /tmp/here{number}; while ! test -e /tmp/go; do sleep 0.02; done; ls /tmp"
            outputs[number] = run(root, text)["output"]

        roots = (one, two)
        threads = [threading.Thread(target=work, args=(number, root)) for number, root in enumerate(roots)]
        for thread in threads:
            thread.start()
        while not all((root.path / f"tmp/here{number}").exists() for number, root in enumerate(roots)):
            time.sleep(0.01)
        for root in roots:
            (root.path / "tmp/go").touch()
        for thread in threads:
            thread.join()
    return outputs


def applied(setting: Setting) -> dict[str, Any]:
    """COPY's changes: seen by steps, and no part of what these change."""
    changes = [
        Entry("data", FileType.DIRECTORY, 0o700, 5, 6, 5_000_000_000),
        Entry("data/new", FileType.FILE, 0o4755, 1000, 1001, 7_000_000_001, 3, content=BytesContent(b"new")),
        Entry("data/other", FileType.HARDLINK, target="data/new"),
        Entry("data/link", FileType.SYMLINK, 0o777, 7, 8, 9_000_000_000, target="new"),
        Whiteout("data/one"),
        Entry("made/deep/file", FileType.FILE, 0o600, size=1, content=BytesContent(b"x")),
        Entry("etc/passwd", FileType.FILE, 0o644, mtime=1, size=len(PASSWD), content=BytesContent(PASSWD)),
    ]
    look = "cat /data/new /data/other; ls -A /data; stat -c '%a %Y' /data /data/new /etc; cat /made/deep/file"
    with setting.isolation.open_root(busybox()) as root:
        etc = root.tree().entry("etc")
        assert etc is not None
        root.apply(changes)
        tree = root.tree()
        owners = [tree.entry(path) for path in ("data", "data/new", "data/link", "made")]
        seen = run(root, look)
        nothing = describe(root.commit())
        run(root, "echo more >>/data/new; rm /data/two")
        then = describe(root.commit())
        same = root.tree().entry("etc") == replace(etc)
    return {
        "output": seen["output"],
        "owners": [(entry.uid, entry.gid) for entry in owners if entry],
        "changes": nothing,
        "then": then,
        "etc_same": same,
    }


def stable_contents(setting: Setting) -> list[str]:
    """A commit's contents, read after later steps changed the files."""
    with setting.isolation.open_root(busybox()) as root:
        run(root, "echo first >/a; ln /a /b")
        changes = list(root.commit())
        run(root, "echo second >/a; rm /b")
        root.commit()
        return describe(changes)


def many_layers(setting: Setting, count: int) -> dict[str, Any]:
    """An image of `count` small layers, each of which replaces a file and adds one."""
    layers = []
    for number in range(count):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            for name in ("latest", f"layer{number}"):
                member = tarfile.TarInfo(name)
                data = str(number).encode()
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
        layers.append(buffer.getvalue())
    with setting.isolation.open_root(busybox(*layers)) as root:
        result = run(root, "cat /latest; ls / | grep -c layer; touch /new")
        return {**result, "changes": describe(root.commit())}


def implied(setting: Setting) -> dict[str, Any]:
    """Layers that write into directories which they have no entry for."""

    def files(*names: str) -> bytes:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            for name in names:
                member = tarfile.TarInfo(name)
                member.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
                member.mode = 0o1770 if name.endswith("/") else 0o644
                member.mtime = 77
                archive.addfile(member)
        return buffer.getvalue()

    looks = []
    for more in (
        (files("opt/", "opt/deep/", "opt/deep/a"), files("opt/deep/b"), files("opt/c")),
        (files("var/run/x"),),  # /var/run is a symlink in the layer below
        (files("opt/", "opt/deep/", "opt/deep/a"), files("opt/deep/b"), files("opt/.wh.deep"), files("opt/deep/c")),
    ):
        with setting.isolation.open_root(busybox(*more)) as root:
            looks.append(
                run(root, "ls -Al /opt /opt/deep; stat -c '%a %Y %n' /opt /opt/deep /tmp / ; ls -l /run /var/run")
            )
            assert describe(root.commit()) == []
    return {"looks": [look["output"] for look in looks]}


def law(setting: Setting, tars: list[str], scripts: list[str]) -> list[str]:
    """extract(base) + layers == root: the differences, after each of `scripts`."""
    try:
        return _law(setting, [base64.b64decode(tar) for tar in tars], scripts)
    except ImageError:
        return []  # no image at all: a hardlink to nothing


def _law(setting: Setting, base: list[bytes], scripts: list[str]) -> list[str]:
    layers = [busybox_layer(), *base]
    with (
        tempfile.TemporaryDirectory(dir=setting.work) as scratch,
        setting.isolation.open_root(busybox(*base)) as root,
    ):
        made: list[Layer] = []
        for number, text in enumerate(scripts):
            run(root, text)
            directory = Path(scratch) / f"layer{number}"
            directory.mkdir()
            made.append(write_layer(root.commit(), directory, LayerFormat(compression="none")))
            copy = Path(scratch) / f"copy{number}"
            copy.mkdir()
            copy.chmod(0o755)
            owners = setting.owners()
            for layer in (*map(make_layer, layers), *made):
                with layer.blob.open() as stream:
                    set_owner = owners.set if owners.recorded else None
                    unpack(stream, copy, compression="none", set_owner=set_owner, not_applied=lambda *_: None)
            expected = comparable(root.tree())
            found = comparable(DirectoryTree(copy, owners.of if owners.recorded else None))
            if owners.recorded:
                # The copy cannot have devices: this process may not make them, and no one answers in its place.
                expected, found = without_devices(expected), without_devices(found)
            if expected != found:
                paths = [path for path in {**expected, **found} if expected.get(path) != found.get(path)]
                return [f"{path}: root {expected.get(path)}, layers {found.get(path)}" for path in paths]
    return []


def without_devices(entries: dict[str, Any]) -> dict[str, Any]:
    """`entries` of `comparable` less the devices."""
    devices = (FileType.CHARACTER_DEVICE, FileType.BLOCK_DEVICE)
    return {path: value for path, value in entries.items() if value[0].type not in devices}


def descriptors(setting: Setting) -> str:
    """The numbers of the descriptors that a step has open."""
    with setting.isolation.open_root(busybox()) as root:
        return run(root, "for n in 0 1 2 3 4 5 6 7 8 9; do test -e /proc/self/fd/$n && echo $n; done")["output"]


def pid_namespaces(setting: Setting) -> list[str]:
    """The one that a step's /proc says it is in, and this process's."""
    with setting.isolation.open_root(busybox()) as root:
        return [run(root, "readlink /proc/self/ns/pid")["output"].strip(), os.readlink("/proc/self/ns/pid")]


def interrupted(setting: Setting) -> dict[str, Any]:
    """An exception in the middle of a step: of whoever takes its output."""

    class Stop(Exception):
        pass

    def stop(_: bytes) -> None:
        raise Stop

    try:
        with setting.isolation.open_root(busybox()) as root:
            root.run(Process(("/bin/sh", "-c", "echo x; sleep 1234567"), {"PATH": "/bin"}, output=stop))
    except Stop:
        pass
    alive = subprocess.run(["pgrep", "-f", "sleep 1234567"], capture_output=True, text=True).stdout
    return {"alive": alive}
