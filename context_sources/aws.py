"""An S3 client whose settings and credentials come from a given environment, by botocore's own chain.

botocore reads `os.environ` where it is not told otherwise; here every variable it knows is handed to it.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import botocore.loaders
import botocore.session
from botocore import UNSIGNED, configprovider, credentials, exceptions
from botocore.config import Config

from builder.errors import ContextError
from context_sources.http_environment import ca_bundle, proxies_for
from context_sources.objects import IN_PARALLEL

CONNECT_TIMEOUT, READ_TIMEOUT = 30, 60  # seconds
WEB_IDENTITY = {
    "web_identity_token_file": "AWS_WEB_IDENTITY_TOKEN_FILE",
    "role_arn": "AWS_ROLE_ARN",
    "role_session_name": "AWS_ROLE_SESSION_NAME",
}
ORIGINS = {
    "env": "AWS_ACCESS_KEY_ID of the environment",
    "assume-role-with-web-identity": "the web identity in AWS_WEB_IDENTITY_TOKEN_FILE",
    "assume-role": "an assumed role of the shared configuration",
    "shared-credentials-file": "the shared credentials file",
    "config-file": "the shared configuration file",
    "container-role": "the container's role",
    "iam-role": "the instance's role",
    "sso": "single sign-on",
    "custom-process": "credential_process of the shared configuration",
}


@dataclass(frozen=True, slots=True)
class Access:
    """`client` is for many threads, `used` what it uses as a credential, in words. The rest is what it was made of.

    `credentials` are botocore's, None for none; `environment` says which proxy and which certificates.
    """

    client: Any
    used: str
    credentials: Any
    environment: Mapping[str, str]


def s3_access(environment: Mapping[str, str]) -> Access:
    """Access to the S3 store of `environment`.

    S3_ENDPOINT and S3_FORCE_PATH_STYLE are kaniko's variables. Without any credential requests are not signed, which
    public buckets allow.
    """
    with without_collection():
        return _s3_access(environment)


@contextmanager
def without_collection() -> Iterator[None]:
    """Nothing is searched for garbage: botocore reads models of 100,000 values that stay, which halves its time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _s3_access(environment: Mapping[str, str]) -> Access:
    try:
        session = session_for(environment)
        found = session.get_credentials()
    except (exceptions.BotoCoreError, exceptions.ClientError) as error:
        raise ContextError(f"AWS credentials: {error}", "check the AWS_ variables of the environment") from error
    path_style = environment.get("S3_FORCE_PATH_STYLE", "").lower() in ("true", "1")
    endpoint = (
        environment.get("S3_ENDPOINT") or environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL")
    )
    proxies = proxies_for(endpoint or "https://s3.amazonaws.com", environment) or None
    verify = environment.get("AWS_CA_BUNDLE") or ca_bundle(environment) or session.get_config_variable("ca_bundle")
    config = Config(
        retries={"total_max_attempts": 1},  # Limpet tries again itself, from where the transfer broke off
        connect_timeout=CONNECT_TIMEOUT,
        read_timeout=READ_TIMEOUT,
        max_pool_connections=2 * IN_PARALLEL,
        proxies=proxies,
        s3={"addressing_style": "path"} if path_style else None,
        signature_version=UNSIGNED if found is None else None,
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",  # those of whole objects do not fit parts of them
    )
    client = session.create_client(
        "s3",
        region_name=session.get_config_variable("region") or "us-east-1",
        endpoint_url=endpoint,
        config=config,
        verify=verify or True,
    )
    used = "no credential was found, requests are anonymous"
    if found is not None:
        used = f"the credential was {ORIGINS.get(found.method, found.method)}"
    return Access(client, used, found, {**environment, "SSL_CERT_FILE": verify} if verify else environment)


class DirectLoader(botocore.loaders.Loader):  # type: ignore[misc]  # botocore has no types
    """Looks for what it loads, but not first through the directories of all other services, which takes 30 ms."""

    def list_available_services(self, type_name: str) -> list[str]:
        """The names that may be services; for one that is none, `determine_latest_version` says so."""
        return [name for path in self.search_paths if os.path.isdir(path) for name in os.listdir(path)]


def data_loader(session: botocore.session.Session) -> DirectLoader:
    """What the session has by itself, AWS_DATA_PATH included."""
    directories = session.get_config_variable("data_path")
    extra = [os.path.expanduser(path) for path in directories.split(os.pathsep)] if directories else None
    return DirectLoader(extra_search_paths=extra)


def session_for(environment: Mapping[str, str]) -> botocore.session.Session:
    """A session that knows the variables of `environment`."""
    session = botocore.session.Session()
    for name, (_, variables, _, _) in configprovider.BOTOCORE_DEFAUT_SESSION_VARIABLES.items():
        for variable in [variables] if isinstance(variables, str) else variables or []:
            if name != "profile" and environment.get(variable):
                session.set_config_variable(name, environment[variable])
                break
    home = environment.get("HOME", "")
    for name, variable, default in (
        ("config_file", "AWS_CONFIG_FILE", "config"),
        ("credentials_file", "AWS_SHARED_CREDENTIALS_FILE", "credentials"),
    ):
        if not environment.get(variable) and home:
            session.set_config_variable(name, f"{home}/.aws/{default}")
    region = environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION")
    if region:
        session.set_config_variable("region", region)
    profile = environment.get("AWS_PROFILE") or environment.get("AWS_DEFAULT_PROFILE")
    if profile:
        session.set_config_variable("profile", profile)
    session.register_component("data_loader", data_loader(session))
    session.register_component("credential_provider", resolver(session, environment, region, profile))
    return session


def resolver(
    session: botocore.session.Session, environment: Mapping[str, str], region: str | None, profile: str | None
) -> credentials.CredentialResolver:
    """botocore's chain with those of its members that read the environment replaced by ones that read this one.

    A variable AWS_PROFILE does not put the keys of the environment aside, as a profile set in code does.
    """
    chain = credentials.create_credential_resolver(session, region_name=region)
    providers = [provider for provider in chain.providers if provider.METHOD not in ("env", "container-role")]
    web_identity = {key: environment[name] for key, name in WEB_IDENTITY.items() if environment.get(name)}
    first: list[Any] = [credentials.EnvProvider(environ=environment)]
    if "web_identity_token_file" in web_identity:
        first.append(
            credentials.AssumeRoleWithWebIdentityProvider(
                load_config=lambda: {"profiles": {"environment": web_identity}},
                client_creator=client_creator(session, region, environment.get("AWS_ENDPOINT_URL_STS")),
                profile_name="environment",
                disable_env_vars=True,
            )
        )
    instance = [provider for provider in providers if provider.METHOD == "iam-role"]
    others = [provider for provider in providers if provider.METHOD != "iam-role"]
    container = credentials.ContainerProvider(environ=environment)
    return credentials.CredentialResolver(providers=[*first, *others, container, *instance])


def client_creator(session: botocore.session.Session, region: str | None, endpoint: str | None) -> Any:
    """Makes the client that exchanges the web identity, at `endpoint` where AWS's own is not to be used."""

    def create(service: str, **options: Any) -> Any:
        return session.create_client(service, **{"region_name": region, "endpoint_url": endpoint, **options})

    return create
