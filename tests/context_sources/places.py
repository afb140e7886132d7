"""Places that keep an archive, each a real server: what is put there can be fetched from the location given back."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any
from urllib.parse import urljoin

import botocore.session
import requests
from azure.storage.blob import BlobServiceClient
from botocore.config import Config

from builder.oci.reference import Reference
from builder.registry.artifact import pull_artifact
from builder.registry.credentials.chain import Credentials
from builder.registry.registries import Registries
from builder.registry.settings import RegistrySettings
from tests.servers.azurite import AzuriteServer
from tests.servers.seaweedfs import S3Server

BUCKET = "places"


@dataclass(frozen=True)
class Placed:
    """`location` of an archive, and what its fetch needs: `environment`, FetchSettings, `argv` for the same."""

    location: str
    environment: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    argv: tuple[str, ...] = ()


# Puts an archive, by the name of a file; `host` replaces the server's own in what comes back.
Put = Callable[[str, bytes, str], Placed]


def in_directory(directory: Path) -> Put:
    def put(name: str, data: bytes, host: str = "") -> Placed:
        (directory / name).write_bytes(data)
        return Placed(f"tar://{directory / name}")

    return put


def on_web_server(root: Path, host: str) -> Put:
    backend = host

    def put(name: str, data: bytes, host: str = "") -> Placed:
        (root / name).write_bytes(data)
        url = f"http://{host or backend}/{name}"
        return Placed(url, settings={"allow_http": True}, argv=("--context-allow-http",))

    return put


def s3_client(server: S3Server) -> Any:
    """For the writer."""
    return botocore.session.Session().create_client(
        "s3",
        endpoint_url=server.url,
        region_name="us-east-1",
        aws_access_key_id=server.writer[0],
        aws_secret_access_key=server.writer[1],
        config=Config(
            s3={"addressing_style": "path"}, request_checksum_calculation="when_required", max_pool_connections=32
        ),
    )


def s3_environment(server: S3Server, host: str = "") -> dict[str, str]:
    return {
        "S3_ENDPOINT": f"http://{host or server.host}",
        "S3_FORCE_PATH_STYLE": "true",
        "AWS_ACCESS_KEY_ID": server.writer[0],
        "AWS_SECRET_ACCESS_KEY": server.writer[1],
    }


def in_s3(server: S3Server) -> Put:
    client = s3_client(server)
    client.create_bucket(Bucket=BUCKET)

    def put(name: str, data: bytes, host: str = "") -> Placed:
        client.put_object(Bucket=BUCKET, Key=name, Body=data)
        return Placed(f"s3://{BUCKET}/{name}", s3_environment(server, host))

    return put


def make_gcs_bucket(host: str, name: str) -> None:
    requests.post(f"http://{host}/storage/v1/b", json={"name": name}, timeout=60).raise_for_status()


def put_gcs_object(host: str, bucket: str, name: str, data: bytes | IO[bytes]) -> str:
    """Its generation."""
    answer = requests.post(
        f"http://{host}/upload/storage/v1/b/{bucket}/o",
        params={"uploadType": "media", "name": name},
        data=data,
        headers={"Content-Type": "application/octet-stream"},
        timeout=600,
    )
    answer.raise_for_status()
    generation: str = answer.json()["generation"]
    return generation


def in_gcs(backend: str) -> Put:
    make_gcs_bucket(backend, BUCKET)

    def put(name: str, data: bytes, host: str = "") -> Placed:
        put_gcs_object(backend, BUCKET, name, data)
        return Placed(f"gs://{BUCKET}/{name}", {"STORAGE_EMULATOR_HOST": f"http://{host or backend}"})

    return put


def azure_client(server: AzuriteServer) -> Any:
    return BlobServiceClient(server.url, {"account_name": server.account, "account_key": server.key})


def in_azure(server: AzuriteServer) -> Put:
    container = azure_client(server).create_container(BUCKET)

    def put(name: str, data: bytes, host: str = "") -> Placed:
        container.upload_blob(name, data, overwrite=True)
        url = server.url.replace(server.url.split("/")[2], host) if host else server.url
        environment = {"AZURE_STORAGE_BLOB_ENDPOINT": url, "AZURE_STORAGE_ACCESS_KEY": server.key}
        settings, argv = {"allow_http": True}, ("--context-allow-http",)
        return Placed(f"{url}/{BUCKET}/{name}", environment, settings, argv)

    return put


def push_blob(host: str, repository: str, data: bytes) -> str:
    """Its digest."""
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    begun = requests.post(f"http://{host}/v2/{repository}/blobs/uploads/", timeout=60)
    done = requests.put(urljoin(begun.url, begun.headers["Location"]), params={"digest": digest}, data=data, timeout=60)
    done.raise_for_status()
    return digest


def in_registry(backend: str) -> Put:
    def put(name: str, data: bytes, host: str = "") -> Placed:
        """An artifact with one layer."""
        kind = "application/vnd.oci.image.layer.v1.tar" + ("+gzip" if data.startswith(b"\x1f\x8b") else "")
        repository = f"{BUCKET}/{name}".lower()
        layers = [{"mediaType": kind, "digest": push_blob(backend, repository, data), "size": len(data)}]
        empty = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": push_blob(backend, repository, b"{}")}
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {**empty, "size": 2},
            "layers": layers,
        }
        answer = requests.put(
            f"http://{backend}/v2/{repository}/manifests/1",
            data=json.dumps(manifest),
            headers={"Content-Type": manifest["mediaType"]},
            timeout=60,
        )
        answer.raise_for_status()

        def pull(reference: str) -> Any:
            settings = RegistrySettings(insecure_pull=True, backoff=0.01)
            return pull_artifact(Reference.parse(reference), Registries(settings, Credentials({}), {}))

        return Placed(f"oci://{host or backend}/{repository}:1", settings={"registry_pull": pull})

    return put


def gzipped(data: bytes) -> bytes:
    return gzip.compress(data, 1)
