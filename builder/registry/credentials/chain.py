"""The search for a repository's credential, in kaniko's order."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from builder.errors import UsageError
from builder.events import Listener, Message, Silent
from builder.registry.credentials import clouds, variables
from builder.registry.credentials.credential import HELPERS, Credential, Lookup
from builder.registry.credentials.docker_config import DockerConfig, config_path, pod_paths, podman_paths

_ABOUT_TO_EXPIRE = 120.0  # seconds

_Source = Callable[[str, str], Credential | None]


class Credentials:
    """Finds credentials; everything that lies in files and variables is read when it is made. Thread-safe.

    Order: DOCKER_AUTH_CONFIG, config.json, those that pods have elsewhere, REGISTRY_AUTH_FILE and podman's auth.json,
    then those `helpers` (env, google, ecr, acr, gitlab) that are asked for. The first that has one wins; there is no
    second try after a 401.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        *,
        helpers: Iterable[str] | None = None,
        listener: Listener | None = None,
    ) -> None:
        """`environ` is copied: the process may drop it afterwards. `helpers` None means all.

        Raises UsageError when a configuration cannot be read or is malformed. Unknown helpers are warned of.
        """
        self._environ = dict(environ)
        self._listener = listener or Silent()
        self._sources = [*self._files(), *self._helpers(HELPERS if helpers is None else tuple(helpers))]
        self._found: dict[tuple[str, str], Lookup] = {}
        self._lock = threading.Lock()

    def find(self, registry: str, repository: str, *, fresh: bool = False) -> Lookup:
        """Which credential `registry/repository` gets, and where was looked.

        It is remembered until shortly before it expires; `fresh` asks again. Raises RegistryError when a helper
        program or a cloud fails, UsageError when a helper program is not there.
        """
        with self._lock:
            known = self._found.get((registry, repository))
            if known is not None and not fresh and not _expires_soon(known.credential):
                return known
            lookup = self._search(registry, repository)
            self._found[registry, repository] = lookup
        self._listener.tell(Message(f"credential for {lookup}", "debug"))
        return lookup

    def explain(self, registry: str, repository: str) -> str:
        """Which source is used for a repository and which were tried, in a line; never the credential."""
        return str(self.find(registry, repository))

    def _search(self, registry: str, repository: str) -> Lookup:
        tried: list[str] = []
        for name, source in self._sources:
            tried.append(name)
            found = source(registry, repository)
            if found is not None:
                return Lookup(f"{registry}/{repository}", found, tuple(tried))
        return Lookup(f"{registry}/{repository}", None, tuple(tried))

    def _files(self) -> list[tuple[str, _Source]]:
        configs: list[DockerConfig] = []
        text = self._environ.get("DOCKER_AUTH_CONFIG", "")
        if text.strip():
            try:
                configs.append(DockerConfig.parse(text, "DOCKER_AUTH_CONFIG"))
            except UsageError as error:
                # kaniko says so and goes on; pipelines set it to what their platform gives them.
                self._listener.tell(Message(f"{error.message}; it is ignored", "warning"))
        docker = config_path(self._environ)
        configs.append(_load(docker) or DockerConfig(str(docker)))  # named among the places even when it is not there
        configs += filter(None, map(_load, filter(_is_readable, pod_paths(self._environ))))
        configs += filter(None, map(_load, podman_paths(self._environ)))
        return [(config.origin, self._of_config(config)) for config in configs]

    def _of_config(self, config: DockerConfig) -> _Source:
        return lambda registry, repository: config.find(registry, repository, self._environ)

    def _helpers(self, names: tuple[str, ...]) -> list[tuple[str, _Source]]:
        for unknown in sorted(set(filter(None, names)) - set(HELPERS)):
            self._listener.tell(
                Message(f"--credential-helpers: {unknown!r} is unknown; there are {', '.join(HELPERS)}", "warning")
            )
        return [(name, self._helper(name)) for name in HELPERS if name in names]

    def _helper(self, name: str) -> _Source:
        if name == "env":
            return lambda registry, repository: variables.kaniko(registry, self._environ)
        if name == "gitlab":
            return lambda registry, repository: variables.gitlab(registry, repository, self._environ)
        return lambda registry, repository: self._cloud(name, registry)

    def _cloud(self, name: str, registry: str) -> Credential | None:
        if not clouds.serves(name, registry):
            return None
        return clouds.find(name, registry, self._environ)


def _is_readable(path: Path) -> bool:
    """Whether a file is there that this uid may read: nobody named it, so another's is none."""
    return os.access(path, os.R_OK)


def _load(path: Path) -> DockerConfig | None:
    try:
        text = path.read_text()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path}: {getattr(error, 'strerror', None) or 'not text'}") from error
    return DockerConfig.parse(text, str(path)) if text.strip() else None


def _expires_soon(credential: Credential | None) -> bool:
    return (
        credential is not None
        and credential.expires is not None
        and credential.expires < time.time() + _ABOUT_TO_EXPIRE
    )
