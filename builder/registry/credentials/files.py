"""Where credentials lie on the disk, whoever reads them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from builder.registry.credentials.docker_config import config_path, pod_paths, podman_paths

_VARIABLES = (
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AZURE_FEDERATED_TOKEN_FILE",
    "GOOGLE_APPLICATION_CREDENTIALS",
)
_AT_HOME = (".aws/credentials", ".git-credentials", ".netrc")
_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")


def credential_files(environ: Mapping[str, str]) -> tuple[Path, ...]:
    """Files that hold credentials when they are there: docker's, podman's, the clouds', git's and the pod's own."""
    home = Path(environ.get("HOME") or "/root")
    docker = (config_path(environ), *pod_paths(environ), *podman_paths(environ))
    named = (Path(environ[name]) for name in _VARIABLES if environ.get(name))
    return (*docker, *named, *(home / name for name in _AT_HOME), _SERVICE_ACCOUNT)
