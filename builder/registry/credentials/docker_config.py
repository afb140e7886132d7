"""Credential files of docker and podman: config.json, auth.json, and DOCKER_AUTH_CONFIG, which holds the same."""

from __future__ import annotations

import base64
import binascii
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from builder.errors import RegistryError, UsageError
from builder.registry.credentials import clouds, program
from builder.registry.credentials.credential import Credential
from builder.registry.credentials.keys import HUB_KEY, Scope, helper_key


@dataclass(frozen=True, slots=True)
class DockerConfig:
    """The parsed contents of one file. `origin` names it for people."""

    origin: str
    auths: tuple[tuple[str, Scope, Credential], ...] = field(default=(), repr=False)
    helpers: tuple[tuple[Scope, str], ...] = ()
    store: str = ""

    @classmethod
    def parse(cls, text: str, origin: str) -> DockerConfig:
        """Raises UsageError when it is not a docker configuration; members that are not about credentials are free."""
        try:
            value = json.loads(text)
            auths = dict(value.get("auths") or {})
            helpers = dict(value.get("credHelpers") or {})
            store = str(value.get("credsStore") or "")
            entries = [(key, Scope.parse(key), _entry(key, entry or {}, origin)) for key, entry in auths.items()]
            found = tuple((key, scope, entry) for key, scope, entry in entries if entry is not None)
            return cls(
                origin, found, tuple((Scope.parse(key), str(name)) for key, name in helpers.items() if name), store
            )
        except (ValueError, TypeError, AttributeError) as error:
            # The text of such an error can quote the file, and with it a secret.
            raise UsageError(
                f"{origin} is not a docker configuration: {_position(error)}",
                'it is JSON of the form {"auths": {"registry.example.com": {"auth": "base64 of user:password"}}}',
            ) from None

    def find(self, registry: str, repository: str, environ: Mapping[str, str]) -> Credential | None:
        """The most specific entry that covers the repository: `credHelpers` and `auths` by path, then `credsStore`.

        Raises RegistryError when a helper fails, UsageError when it is not there.
        """
        matches: list[tuple[int, int, Credential | str]] = []
        for scope, name in self.helpers:
            if scope.covers(registry, repository):
                matches.append((len(scope.path), 1, name))
        for _, scope, entry in self.auths:
            if scope.covers(registry, repository):
                matches.append((len(scope.path), 0, entry))
        for _, _, match in sorted(matches, key=lambda item: item[:2], reverse=True):
            found = match if isinstance(match, Credential) else self._ask(match, registry, environ)
            if found is not None:
                return found
        return self._ask(self.store, registry, environ) if self.store else None

    def _ask(self, name: str, registry: str, environ: Mapping[str, str]) -> Credential | None:
        cloud = clouds.BY_HELPER.get(name)
        if cloud is not None and not program.is_installed(name, environ):
            return clouds.find(cloud, registry, environ) if clouds.serves(cloud, registry) else None
        path = program.helper_path(name, environ, self.origin)
        return program.get([path], helper_key(registry), environ, f"docker-credential-{name} ({self.origin})")


def config_path(environ: Mapping[str, str]) -> Path:
    """Where docker keeps config.json: $DOCKER_CONFIG, else ~/.docker."""
    directory = environ.get("DOCKER_CONFIG") or os.path.join(environ.get("HOME") or "/root", ".docker")
    return Path(directory) / "config.json"


def pod_paths(environ: Mapping[str, str]) -> tuple[Path, ...]:
    """Where a pod has docker configurations besides `config_path`, in order.

    A Secret of type kubernetes.io/dockerconfigjson that is mounted as it is; Tekton's for the service account, which
    it cannot always copy into the home directory; kaniko's directory.
    """
    beside = config_path(environ).with_name(".dockerconfigjson")
    return (beside, Path("/tekton/creds/.docker/config.json"), Path("/kaniko/.docker/config.json"))


def podman_paths(environ: Mapping[str, str]) -> tuple[Path, ...]:
    """Where podman keeps auth.json, in the order it looks (containers-auth.json(5))."""
    home = environ.get("HOME") or "/root"
    found = [Path(environ["REGISTRY_AUTH_FILE"])] if environ.get("REGISTRY_AUTH_FILE") else []
    if environ.get("XDG_RUNTIME_DIR"):
        found.append(Path(environ["XDG_RUNTIME_DIR"]) / "containers/auth.json")
    found.append(Path(environ.get("XDG_CONFIG_HOME") or os.path.join(home, ".config")) / "containers/auth.json")
    return tuple(found)


def login(registry: str, username: str, password: str, environ: Mapping[str, str]) -> str:
    """Store a credential as `docker login` does, without asking the registry; where it went.

    It goes to the helper that config.json names for the registry, else into `auths`. Raises UsageError,
    RegistryError.
    """
    path = config_path(environ)
    scope = Scope.parse(registry)
    key = HUB_KEY if helper_key(scope.registry) == HUB_KEY else registry
    text = _read(path)
    config = DockerConfig.parse(text, str(path)) if text else DockerConfig(str(path))
    name = next((name for covered, name in config.helpers if covered == scope), config.store)
    if name:
        program.store([program.helper_path(name, environ, str(path))], key, username, password, environ)
        return f"docker-credential-{name}"
    value = json.loads(text) if text else {}
    auth = base64.b64encode(f"{username}:{password}".encode()).decode()
    entry = {"identitytoken": password} if username == "<token>" else {"auth": auth}
    value.setdefault("auths", {})[key] = entry
    _write(path, json.dumps(value, indent="\t") + "\n")
    return str(path)


def _entry(key: str, value: Mapping[str, Any], origin: str) -> Credential | None:
    where = f"{origin} (entry {key})"
    if value.get("registrytoken"):
        return Credential("registry token", "", str(value["registrytoken"]), where)
    username, password = str(value.get("username") or ""), str(value.get("password") or "")
    if value.get("auth"):
        try:
            pair = base64.b64decode(str(value["auth"]).strip() + "==").decode()
        except (binascii.Error, UnicodeDecodeError):
            raise ValueError(f"the auth of {key} is not base64 of user:password") from None
        username, _, password = pair.partition(":")
        password = password.rstrip("\0")
    if value.get("identitytoken"):
        return Credential("identity token", username, str(value["identitytoken"]), where)
    return program.credential(username, password, where)


def _position(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at line {error.lineno}"
    return str(error) if type(error) is ValueError else "its members have the wrong types"


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path}: {getattr(error, 'strerror', None) or 'not text'}") from error


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=".config.json.", delete=False) as file:
            file.write(text)
        os.replace(file.name, path)  # mode 0600, which NamedTemporaryFile gave it
    except OSError as error:
        raise RegistryError(
            f"cannot write {path}: {error.strerror}", "set DOCKER_CONFIG to another directory"
        ) from error
