"""What a build fetches, and how often."""

from __future__ import annotations

import subprocess
from collections import Counter
from pathlib import Path

import pytest

from tests.build.program import Builder
from tests.servers.registry import RegistryServer

DOCKERFILES = {
    "two that run": "FROM base AS a\nRUN echo 1 > /1\nFROM base\nRUN echo 2 > /2\nCOPY --from=a /1 /\n",
    "one that runs, one that copies": "FROM base AS a\nRUN echo 1 > /1\nFROM base\nWORKDIR /w\nCOPY --from=a /1 2\n",
}


@pytest.mark.parametrize("dockerfile", DOCKERFILES.values(), ids=DOCKERFILES)
def test_a_base_of_several_stages_is_fetched_once(
    limpet: Builder, registry: RegistryServer, base: Path, dockerfile: str, request: pytest.FixtureRequest
) -> None:
    name = f"pulls-{abs(hash(request.node.name))}"
    reference = f"{registry.host}/{name}/base:1"
    subprocess.run(
        ["skopeo", "copy", "-q", "--dest-tls-verify=false", f"oci:{base}", f"docker://{reference}"], check=True
    )
    limpet.dockerfile(dockerfile, x="x")
    done = limpet(f"--build-context=base=docker-image://{reference}", f"--destination={registry.host}/{name}:1")
    assert done.returncode == 0, done.stderr
    fetched = Counter(registry.requests("GET", f"/v2/{name}/base/blobs/"))
    assert fetched
    assert set(fetched.values()) == {1}
