"""docs/contexts.md and examples/contexts: what they show is read by Limpet and by Kubernetes' schemas."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from builder.cli.arguments import parse
from builder.cli.settings import settings_of
from context_sources.schemes import BUILT_IN, kind_of

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "contexts.md").read_text()
EXAMPLES = sorted((ROOT / "examples" / "contexts").glob("*.sh"))
FILLED_IN = {
    "IMAGE": "registry.example.com/app:1",
    "SHA256": "0" * 64,
    "DIGEST": f"sha256:{'0' * 64}",
    "VERSION": "v1",
    "GENERATION": "1700000000000000",
    "SAS": "sv=1&sig=x",
}


def command_of(script: Path, directory: Path) -> tuple[list[str], dict[str, str]]:
    """Arguments and environment that the script starts `limpet` with."""
    fake = directory / "limpet"
    fake.write_text(
        "#!/usr/bin/env python3\nimport json, os, sys\nprint(json.dumps([sys.argv[1:], dict(os.environ)]))\n"
    )
    fake.chmod(0o755)
    environment = {**FILLED_IN, "PATH": f"{directory}:{os.environ['PATH']}"}
    done = subprocess.run([script], env=environment, cwd=directory, check=True, capture_output=True, text=True)
    arguments, started_with = json.loads(done.stdout)
    return arguments, started_with


@pytest.mark.parametrize("script", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_a_command_line_of_limpet(script: Path, tmp_path: Path) -> None:
    argv, environment = command_of(script, tmp_path)
    arguments = parse("build", argv, environment)
    settings = settings_of(arguments, environment)
    kind = kind_of(settings.source.context, environment)
    assert script.stem.partition("-")[0] == kind
    assert settings.output.destinations == (FILLED_IN["IMAGE"],)
    assert len([line for line in script.read_text().splitlines() if not line.startswith("#")]) == 1


def test_every_source_has_an_example(tmp_path: Path) -> None:
    found = set()
    for script in EXAMPLES:
        argv, environment = command_of(script, tmp_path)
        found.add(kind_of(settings_of(parse("build", argv, environment), environment).source.context, environment))
    assert found == set(BUILT_IN)


def manifests() -> list[dict[str, Any]]:
    texts = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return [value for text in texts for value in yaml.safe_load_all(text)]


def test_manifests_are_valid_and_fit_together() -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    secrets = {value["metadata"]["name"] for value in manifests() if value["kind"] == "Secret"}
    for value in manifests():
        kubernetes_validate.validate(value, "1.31", strict=True)
        if value["kind"] == "Pod":
            (container,) = value["spec"]["containers"]
            named = {source["secretRef"]["name"] for source in container.get("envFrom", [])}
            named |= {volume["secret"]["secretName"] for volume in value["spec"].get("volumes", [])}
            assert named <= secrets | {"registry"}
            mounted = {mount["name"] for mount in container.get("volumeMounts", [])}
            assert mounted == {volume["name"] for volume in value["spec"].get("volumes", [])}
            parse("build", container["args"], {})


def test_variables_of_the_page_are_known_to_the_code() -> None:
    rooms = (ROOT / "context_sources", ROOT / "builder" / "cli")
    code = "".join(path.read_text() for room in rooms for path in room.rglob("*.py"))
    named = set(re.findall(r"`((?:GIT|AWS|AZURE|GOOGLE|S3|SSL|LIMPET)_[A-Z_]+)", PAGE))
    # botocore reads these; ssh reads its own
    unknown = {name for name in named if name not in code and name.removeprefix("AZURE_") not in code}
    assert unknown <= {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "SSH_AUTH_SOCK"}
