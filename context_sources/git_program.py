"""Running the git program: what it may read, which credentials it gets, and how these stay hidden.

Secrets are in the environment of git alone, and git asks for them through a credential helper that is bound to the
address's own host: neither a redirect nor a submodule elsewhere gets them. Nothing of them is in an argument, in a
configuration file or in the checkout.
"""

from __future__ import annotations

import glob
import os
import pwd
import re
import shlex
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from builder.errors import ContextError, UsageError
from context_sources.git_address import GitAddress
from context_sources.source import FetchSettings

# Of git's own variables only these reach it: the others (GIT_DIR, GIT_TRACE_CURL, ...) redirect or reveal something.
KEPT = re.compile(
    r"GIT_(SSL_.*|HTTP_.*|PROXY_.*|SSH|SSH_COMMAND|SSH_VARIANT|ASKPASS|EXEC_PATH|LFS_.*"
    r"|CONFIG_SYSTEM|CONFIG_NOSYSTEM|CONFIG_COUNT|CONFIG_KEY_\d+|CONFIG_VALUE_\d+)"
)
NOT_FOR_GIT = ("GIT_", "LIMPET_", "KANIKO_")  # Limpet's own may hold an address with a password
USER, PASSWORD = "LIMPET_GIT_USER", "LIMPET_GIT_PASSWORD"
HELPER = f"""!f() {{ test "$1" = get && printf 'username=%s\\npassword=%s\\n' "${USER}" "${PASSWORD}"; }}; f"""
KEY_FILE, KNOWN_HOSTS_FILE = "GIT_SSH_KEY_FILE", "GIT_SSH_KNOWN_HOSTS_FILE"
SSH_DIRECTORY = "GIT_SSH_DIR"  # instead of $HOME/.ssh: a mounted Secret, ssh-privatekey of kubernetes.io/ssh-auth too
RECEIVED = re.compile(r"Receiving objects:.*, ([0-9.]+) (bytes|KiB|MiB|GiB)")
UNITS = {"bytes": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
PROGRESS = re.compile(r"(remote: )?[A-Z][A-Za-z ]+: +\d+%? ")
USERINFO = re.compile(r"(https?://)[^/@\s]+@")
REMARK = re.compile(
    r"fatal: Could not read from remote repository|Please make sure you have the correct|and the repository exists"
)
KEPT_LINES = 50
BLOCK = 1 << 16  # what a pipe holds


class GitFailed(Exception):
    """git exited non-zero; `text` is the last of what it said."""

    def __init__(self, command: str, code: int, text: str) -> None:
        super().__init__(f"git {command}: {last_line(text)}")
        self.command = command
        self.code = code
        self.text = text


def last_line(text: str) -> str:
    """The line that says why: the last `fatal:` or `error:`, else the last. What ssh says comes before git's remark."""
    lines = [line for line in text.splitlines() if line and not REMARK.match(line)]
    telling = [line for line in lines if line.startswith(("fatal:", "error:", "ERROR:"))]
    return (telling or lines or ["it said nothing"])[-1].removeprefix("fatal: ").removeprefix("error: ")


@dataclass(frozen=True, slots=True)
class Credential:
    """What git is given for the address's host; `origin` says where it was found, for messages."""

    user: str
    password: str = field(repr=False)
    origin: str


def credential_for(address: GitAddress, environment: Mapping[str, str]) -> Credential | None:
    """The credential for http(s): GIT_TOKEN, GIT_USERNAME with GIT_PASSWORD, then the URL's own.

    None leaves it to git: credential helpers, GIT_ASKPASS, netrc.
    """
    if address.scheme not in ("https", "http"):
        return None
    token, user, password = (
        environment.get(name, "").strip() for name in ("GIT_TOKEN", "GIT_USERNAME", "GIT_PASSWORD")
    )
    if token:
        found = Credential(user or token_user(address.host), token, "GIT_TOKEN of the environment")
    elif user or password:
        names = " and ".join(name for name in ("GIT_USERNAME", "GIT_PASSWORD") if environment.get(name))
        found = Credential(user or address.user, password, f"{names} of the environment")
    elif address.user or address.password:
        found = Credential(address.user, address.password, "the user in the URL")
    else:
        return None
    if any(character in found.user + found.password for character in "\n\r\0"):
        raise UsageError(f"{found.origin}: the value has several lines", "store the bare value in the secret")
    return found


def token_user(host: str) -> str:
    """The user name that goes with a token.

    Bitbucket asks for x-token-auth, GitLab for oauth2 when the token is an OAuth token. GitHub, Azure DevOps, Gitea
    and GitLab's other tokens take any name.
    """
    if host.endswith("bitbucket.org"):
        return "x-token-auth"
    return "x-access-token" if "github" in host else "oauth2"


class Git:
    """The git program for one address. `scratch` is a private directory outside of the context."""

    def __init__(self, address: GitAddress, settings: FetchSettings, scratch: Path) -> None:
        self.address = address
        self.settings = settings
        self.credential = credential_for(address, settings.environment)
        self._environment = self._surroundings(scratch)

    def _surroundings(self, scratch: Path) -> dict[str, str]:
        given = self.settings.environment
        passed = {
            name: value for name, value in given.items() if not name.startswith(NOT_FOR_GIT) or KEPT.fullmatch(name)
        }
        home = given.get("HOME", "") or str(scratch)
        config = scratch / "config"
        config.write_text(self._configuration(Path(home), scratch), encoding="utf-8", errors="surrogateescape")
        return {
            "PATH": os.defpath,
            "GIT_ASKPASS": "",
            **passed,
            "HOME": home,
            "LC_ALL": "C",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_CONFIG_GLOBAL": str(config),
            "GIT_TEMPLATE_DIR": "",
            **certificates(given, self.address.scheme),
            **({USER: self.credential.user, PASSWORD: self.credential.password} if self.credential else {}),
        }

    def _configuration(self, home: Path, scratch: Path) -> str:
        """A file for GIT_CONFIG_GLOBAL: the user's own files, between what they may change and what they may not."""
        given = self.settings.environment
        xdg = Path(given.get("XDG_CONFIG_HOME", "") or home / ".config")
        stated = given.get("GIT_CONFIG_GLOBAL", "")
        own = [Path(stated)] if stated else [xdg / "git" / "config", home / ".gitconfig"]
        lines = [section("core", sshCommand=shlex.join(ssh_command(given, home, scratch)))]
        lines += [section("include", path=str(path.absolute())) for path in own if path.is_file()]
        lines += [
            section("core", hooksPath="/dev/null", fsmonitor="false"),
            section("core", fsync="none"),  # a machine that fails ends the build, too
            section("protocol", version="2"),
            section("fetch", unpackLimit="1"),  # packs stay packs: taken apart, every object is compressed once more
            section("safe", directory="*"),
            section("gc", auto="0"),
            section("maintenance", auto="false"),
            section("advice", detachedHead="false"),
            section("http", lowSpeedLimit="1", lowSpeedTime="60"),
            lfs_filter(given.get("PATH", os.defpath)),
        ]
        for scheme in ("http", "git"):
            if self.address.scheme != scheme:
                lines.append(section("protocol", scheme, allow="never"))
        if self.settings.git.insecure_skip_tls:
            lines.append(section("http", sslVerify="false"))
        if self.credential is not None:
            # An empty helper takes back those of the user's files: the stated credential is the one that is used.
            url = f"{self.address.scheme}://{self.address.host}"
            lines += [section("credential", url, helper=""), section("credential", url, helper=HELPER)]
        return "".join(lines)

    def run(self, *arguments: str, directory: Path) -> str:
        """What `git arguments` writes to standard output. Raises GitFailed."""
        return os.fsdecode(b"".join(self.blocks(*arguments, directory=directory)))

    def blocks(self, *arguments: str, directory: Path) -> Generator[bytes, None, None]:
        """What `git arguments` writes, as it comes. Not reading all of it ends the program. Raises GitFailed."""
        self.settings.log("debug", f"git {shlex.join(arguments)}")
        try:
            process = subprocess.Popen(
                ["git", *arguments],
                cwd=directory,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except FileNotFoundError as error:
            raise ContextError("git is not installed", "use an executor image that has git, or install it") from error
        assert process.stdout is not None and process.stderr is not None
        said: list[str] = []
        listener = threading.Thread(target=self._listen, args=(process.stderr, said.append), daemon=True)
        listener.start()
        complete = False
        try:
            while block := os.read(process.stdout.fileno(), BLOCK):
                yield block
            complete = True
        finally:
            if not complete:
                os.killpg(process.pid, signal.SIGTERM)
            # Not yet reaped, git still holds the number of its group: what it started is not to outlive its end.
            ended = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            if ended is None or ended.si_status:
                os.killpg(process.pid, signal.SIGTERM)
            listener.join(timeout=5)
            code = process.wait()
            process.stdout.close()
        if code:
            raise GitFailed(arguments[0], code, "\n".join(said[-KEPT_LINES:]))

    def _listen(self, stream: IO[bytes], keep: Callable[[str], None]) -> None:
        """Read git's standard error: progress becomes progress, the rest is logged and kept."""
        with stream:
            rest = b""
            while data := os.read(stream.fileno(), 1 << 16):
                *lines, rest = re.split(rb"[\r\n]+", rest + data)
                for line in lines:
                    self._heard(line, keep)
            self._heard(rest, keep)

    def _heard(self, line: bytes, keep: Callable[[str], None]) -> None:
        text = USERINFO.sub(r"\1", os.fsdecode(line).strip())
        if received := RECEIVED.search(text):
            self.settings.progress(int(float(received[1]) * UNITS[received[2]]), 0)
        elif text and not PROGRESS.match(text):
            keep(text)
            self.settings.log("trace", f"git: {text}")


def section(name: str, subsection: str = "", /, **values: str) -> str:
    """A section of a git configuration file."""
    head = f"[{name} {quoted(subsection)}]" if subsection else f"[{name}]"
    return "\n".join([head, *(f"\t{key} = {quoted(value)}" for key, value in values.items())]) + "\n"


def quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def lfs_filter(path: str) -> str:
    """Files under LFS are fetched; without git-lfs the checkout of such a file fails, rather than leave a pointer."""
    if shutil.which("git-lfs", path=path):
        return section(
            "filter",
            "lfs",
            clean="git-lfs clean -- %f",
            smudge="git-lfs smudge -- %f",
            process="git-lfs filter-process",
            required="true",
        )
    return section("filter", "lfs", smudge="git-lfs smudge -- %f", required="true")


def certificates(environment: Mapping[str, str], scheme: str) -> dict[str, str]:
    """git's name for the CA bundle that the environment states for everybody."""
    if scheme != "https" or "GIT_SSL_CAINFO" in environment or "GIT_SSL_CAPATH" in environment:
        return {}
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        if value := environment.get(name):
            return {"GIT_SSL_CAINFO": value}
    directory = environment.get("SSL_CERT_DIR", "").partition(":")[0]
    return {"GIT_SSL_CAPATH": directory} if directory else {}


def ssh_command(environment: Mapping[str, str], home: Path, scratch: Path) -> list[str]:
    """How git is to call ssh: unknown hosts are refused, nothing is asked, keys and hosts come from $HOME/.ssh.

    ssh itself looks into the home directory of /etc/passwd, which in a pod often is another one. Keys are copied,
    since ssh refuses those that others can read, as keys mounted from a Kubernetes secret are.
    """
    stated = environment.get(SSH_DIRECTORY, "")
    directory = Path(stated) if stated else home / ".ssh"
    command = ["ssh", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes"]
    command += ["-o", "ConnectTimeout=30", "-o", "ServerAliveInterval=15"]
    try:
        account_home = Path(pwd.getpwuid(os.geteuid()).pw_dir)
    except KeyError:
        account_home = None
        command = [*account_for_uid(scratch), *command]
    if (stated or account_home != home) and (directory / "config").is_file():
        command += ["-F", str(directory / "config")]
    known_hosts = stated_file(environment, KNOWN_HOSTS_FILE)
    hosts = [known_hosts] if known_hosts else [directory / "known_hosts", directory / "known_hosts2"]
    command += ["-o", "UserKnownHostsFile=" + " ".join(f'"{path}"' for path in hosts)]
    key = stated_file(environment, KEY_FILE)
    if key is not None:
        command += ["-o", "IdentitiesOnly=yes", "-i", str(private_copy(key, scratch))]
    elif stated or account_home != home:
        for name in ("id_ed25519", "id_ecdsa", "id_rsa", "ssh-privatekey"):
            if os.access(directory / name, os.R_OK):
                command += ["-i", str(private_copy(directory / name, scratch))]
    return command


def stated_file(environment: Mapping[str, str], name: str) -> Path | None:
    value = environment.get(name, "")
    if value and not os.access(value, os.R_OK):
        raise UsageError(f"{name}={value}: no such file, or not readable", "mount the secret there")
    return Path(value) if value else None


def private_copy(key: Path, scratch: Path) -> Path:
    """The key where only its owner reads it, with the newline at its end that ssh insists on."""
    copy = scratch / f"key-{key.name}"
    descriptor = os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(key.read_bytes().rstrip(b"\n") + b"\n")
    return copy


def account_for_uid(scratch: Path) -> list[str]:
    """ssh ends at once for a uid that /etc/passwd does not have. nss_wrapper, where it is installed, gives it one."""
    found = glob.glob("/usr/lib*/libnss_wrapper.so") + glob.glob("/usr/lib/*/libnss_wrapper.so")
    if not found:
        return []
    uid, gid = os.geteuid(), os.getegid()
    (scratch / "passwd").write_text(f"limpet:x:{uid}:{gid}::{scratch}:/bin/sh\n")
    (scratch / "group").write_text(f"limpet:x:{gid}:\n")
    return [
        "env",
        f"LD_PRELOAD={found[0]}",
        f"NSS_WRAPPER_PASSWD={scratch / 'passwd'}",
        f"NSS_WRAPPER_GROUP={scratch / 'group'}",
    ]
