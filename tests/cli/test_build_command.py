"""A small build through a process: logs, results, secrets, errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Limpet

DOCKERFILE = """\
FROM scratch AS files
COPY a /x/

FROM scratch
COPY --from=files /x /y
ENV A=1
"""


@pytest.fixture
def context(tmp_path: Path) -> Path:
    context = tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text(DOCKERFILE)
    (context / "a").write_text("a")
    return context


def test_files_for_pipelines(limpet: Limpet, context: Path, tmp_path: Path) -> None:
    result = limpet(
        f"--context={context}",
        "--no-push",
        f"--oci-layout-path={tmp_path / 'layout'}",
        f"--digest-file={tmp_path / 'digest'}",
        f"--results-dir={tmp_path / 'results'}",
        f"--metadata-file={tmp_path / 'metadata.json'}",
        "--destinations",
        "r.example/app:1",
        "--tags",
        "latest",
        "--log-format=json",
        env={"ARGO_PROGRESS_FILE": str(tmp_path / "progress"), "BUILDER_OUTPUT": str(tmp_path)},
    )
    assert result.returncode == 0, result.stderr
    assert all(json.loads(line)["msg"] for line in result.stderr.splitlines())
    digest = (tmp_path / "digest").read_text()
    index = json.loads((tmp_path / "layout" / "index.json").read_text())
    assert digest == index["manifests"][0]["digest"]
    assert (tmp_path / "results" / "IMAGE_DIGEST").read_text() == digest
    assert (tmp_path / "results" / "IMAGE_URL").read_text() == "r.example/app:1"
    assert (tmp_path / "progress").read_text() == "3/3"
    assert len((tmp_path / "images").read_text().splitlines()) == 2
    metadata = json.loads((tmp_path / "metadata.json").read_text())
    assert metadata["containerimage.digest"] == digest
    assert sorted(stage["name"] for stage in metadata["stages"]) == ["1", "files"]


def test_a_stage_is_announced_with_its_base(limpet: Limpet, context: Path) -> None:
    dockerfile = "FROM scratch AS files\nCOPY a /x/\nFROM files\nCOPY a /y/\n"
    (context / "Dockerfile").write_text(dockerfile)
    result = limpet(f"--context={context}", "--no-push")
    assert result.returncode == 0, result.stderr
    assert "Building stage 'scratch' [idx: '0', base-idx: '-1']" in result.stderr
    assert "Building stage 'files' [idx: '1', base-idx: '0']" in result.stderr


def test_an_error_quotes_the_dockerfile(limpet: Limpet, context: Path) -> None:
    (context / "a").unlink()
    result = limpet(f"--context={context}", "--no-push")
    assert result.returncode == 1
    assert "error: Dockerfile:2: " in result.stderr
    assert "  2 | >>> COPY a /x/" in result.stderr


def test_a_secret_that_a_file_name_gives_away_is_masked(limpet: Limpet, context: Path) -> None:
    (context / "Dockerfile").write_text("FROM scratch\nCOPY swordfish /\n")
    for env, argv in (({"GIT_TOKEN": "swordfish"}, []), ({"PW": "swordfish"}, ["--secret=id=pw,env=PW"])):
        result = limpet(f"--context={context}", "--no-push", "--verbosity=trace", *argv, env=env)
        assert result.returncode == 1
        assert "COPY ***" in result.stderr
        assert "swordfish" not in result.stderr
