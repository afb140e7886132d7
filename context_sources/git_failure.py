"""What git's complaints mean, and what to do about them."""

from __future__ import annotations

import re

from builder.errors import ContextError
from context_sources.git_address import GitAddress
from context_sources.git_program import KEY_FILE, KNOWN_HOSTS_FILE, Credential, GitFailed, last_line

TRANSIENT = re.compile(
    r"early EOF|RPC failed|unexpected disconnect|hung up unexpectedly|Connection reset|Connection timed out"
    r"|Connection refused|transfer closed|Operation too slow|Temporary failure in name resolution|invalid index-pack"
    r"|fetch-pack: |remote error: .*(busy|limit)|returned error: (429|5\d\d)|Empty reply from server|GnuTLS recv error"
    r"|bytes of body are still expected|bad pack header|Failed to connect|Couldn't connect",
    re.IGNORECASE,
)
CERTIFICATE = re.compile(
    r"certificate verif|certificate problem|local issuer|[Cc]ertificate.*(expired|not match|trusted)"
)
TRANSPORT = re.compile(r"transport '.*' not allowed")
NO_LOGIN = re.compile(r"could not read (Username|Password)|terminal prompts disabled")
REFUSED = re.compile(r"Authentication failed|returned error: 40[13]|HTTP Basic: Access denied|Invalid credentials")
NOT_FOUND = re.compile(
    r"returned error: 404|[Rr]epository .*not found|does not appear to be a git repository"
    r"|does not exist|access denied or repository not exported"
)
BY_SHA = re.compile(r"not our ref|unadvertised object|Server does not allow request|couldn't find remote ref")
LFS = re.compile(r"Smudge error: (?:Error d|d)ownloading (.+)")
SHALLOW = re.compile(r"dumb http transport does not support shallow|does not support (shallow|--depth)")


def is_transient(failure: GitFailed) -> bool:
    """Whether the same command may work a little later."""
    text = failure.text
    return bool(TRANSIENT.search(text)) and not (REFUSED.search(text) or NOT_FOUND.search(text) or BY_SHA.search(text))


def explained(failure: GitFailed, address: GitAddress, credential: Credential | None) -> ContextError:
    """The failure as a user needs it: the repository, the credential that was used, what to set."""
    text, where = failure.text, f"git {address.shown}"
    used = f"the credential was {credential.origin}" if credential else "no credential is set"
    settable = "set GIT_TOKEN, or GIT_USERNAME and GIT_PASSWORD, from a secret; credential helpers and netrc work too"
    if missing := LFS.search(text):
        return ContextError(
            f"{where}: git LFS: {missing[1]}", f"the LFS server must have the file and let it be read; {used}"
        )
    if "git-lfs" in text and re.search(r"not found|No such file", text):
        return ContextError(
            f"{where}: the repository keeps files in git LFS and git-lfs is not installed", "install it"
        )
    if NO_LOGIN.search(text):
        return ContextError(f"{where}: the server asks for a login and {used}", settable)
    if REFUSED.search(text):
        status = "403 forbidden" if "returned error: 403" in text else "authentication failed"
        return ContextError(f"{where}: {status}; {used}", f"check that it may read this repository, or {settable}")
    if re.search(r"Host key verification failed|REMOTE HOST IDENTIFICATION HAS CHANGED", text):
        return ContextError(
            f"{where}: the host's ssh key is not among the known hosts",
            f"name a file with it by {KNOWN_HOSTS_FILE}, or mount $HOME/.ssh/known_hosts; "
            f"`ssh-keyscan {address.host}` prints the lines, compare them with what the host publishes",
        )
    if "Permission denied (" in text:
        return ContextError(
            f"{where}: the host accepts none of the ssh keys",
            f"name the private key's file by {KEY_FILE}, mount it in $HOME/.ssh, or set SSH_AUTH_SOCK to an agent's",
        )
    if "No user exists for uid" in text:
        return ContextError(
            f"{where}: ssh needs an account and the uid of this pod has none in /etc/passwd",
            "install nss_wrapper in the image, or fetch by https with GIT_TOKEN",
        )
    if NOT_FOUND.search(text):
        return _not_found(address, used, settable)
    if CERTIFICATE.search(text):
        return ContextError(
            f"{where}: the server's certificate is not trusted: {last_line(text)}",
            "name a bundle with the server's CA by SSL_CERT_FILE or GIT_SSL_CAINFO",
        )
    if forbidden := TRANSPORT.search(text):
        return ContextError(
            f"{where}: {forbidden[0]}", "plain http needs --context-allow-http; local submodules are not followed"
        )
    return ContextError(f"{where}: git {failure.command} failed: {last_line(text)}", transient=is_transient(failure))


def _not_found(address: GitAddress, used: str, settable: str) -> ContextError:
    where = f"git {address.shown}: no such repository"
    if address.scheme == "ssh":
        return ContextError(f"{where}, or it is hidden from this ssh key", f"check the address, or set {KEY_FILE}")
    if address.scheme in ("https", "http"):
        hint = f"check the address; for a private repository {settable}"
        return ContextError(f"{where}, or it is hidden from this credential; {used}", hint)
    return ContextError(where, "check the address" if address.scheme == "file" else "check that it is exported")
