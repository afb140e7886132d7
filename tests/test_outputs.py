"""Files that tell a pipeline what was built."""

from __future__ import annotations

import json
import os
import ssl
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from builder.errors import BuildError
from builder.outputs import BaseImage, ResultFiles, repository_of, tekton_results, write_names, write_results

DIGEST = "sha256:" + "ab" * 32
REFERENCES = ("r.example:5000/app:1", "r.example:5000/app:latest", "other.example/team/app:1")
BASES = (BaseImage("index.docker.io/library/debian", "sha256:" + "cd" * 32), BaseImage("x/y", DIGEST))


def test_names_without_tags() -> None:
    assert repository_of("r:5000/a/b:1") == "r:5000/a/b"
    assert repository_of("r:5000/a/b") == "r:5000/a/b"
    assert repository_of(f"r/a:1@{DIGEST}") == "r/a"


def test_kanikos_three_files(tmp_path: Path) -> None:
    files = ResultFiles(
        digest_file=str(tmp_path / "made" / "on" / "demand" / "digest"),
        name_with_digest_file=str(tmp_path / "names"),
        name_tag_with_digest_file=str(tmp_path / "tagged"),
    )
    (tmp_path / "names").write_text("longer than what will be there " * 100)
    write_names(files, REFERENCES, DIGEST)
    written = Path(files.digest_file)
    assert written.read_text() == DIGEST
    assert stat.S_IMODE(written.stat().st_mode) == 0o644 & ~_umask()
    assert (tmp_path / "names").read_text().splitlines() == [
        f"r.example:5000/app@{DIGEST}",
        f"r.example:5000/app@{DIGEST}",
        f"other.example/team/app@{DIGEST}",
    ]
    assert (tmp_path / "tagged").read_text() == "".join(f"{reference}@{DIGEST}\n" for reference in REFERENCES)


def _umask() -> int:
    value = os.umask(0)
    os.umask(value)
    return value


def test_devices_are_written_to_and_not_replaced() -> None:
    program = f"from builder.outputs import *; write_names(ResultFiles('/dev/stdout'), [], '{DIGEST}')"
    root = Path(__file__).parents[1]
    run = subprocess.run([sys.executable, "-c", program], cwd=root, stdout=subprocess.PIPE, text=True, check=True)
    assert run.stdout == DIGEST
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    write_names(ResultFiles("/dev/null"), [], DIGEST)
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_nothing_is_written_that_was_not_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_names(ResultFiles(), REFERENCES, DIGEST)
    write_results(ResultFiles(), REFERENCES, DIGEST, BASES)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BuildError, match=r"--digest-file: cannot write .*/file/digest: Not a directory"):
        write_names(ResultFiles(str(tmp_path / "file" / "digest")), REFERENCES, DIGEST)


def test_tekton_results(tmp_path: Path) -> None:
    write_results(ResultFiles(results_directory=tmp_path), REFERENCES, DIGEST, BASES)
    results = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert results == tekton_results(REFERENCES, DIGEST, BASES)
    assert results["IMAGE_URL"] == REFERENCES[0]
    assert results["IMAGE_DIGEST"] == DIGEST
    assert results["IMAGE_REF"] == f"r.example:5000/app@{DIGEST}"
    assert results["IMAGES"] == f"r.example:5000/app@{DIGEST},other.example/team/app@{DIGEST}"
    assert json.loads(results["image-ARTIFACT_OUTPUTS"]) == {
        "uri": "r.example:5000/app",
        "digest": DIGEST,
        "isBuildArtifact": "true",
    }
    assert json.loads(results["base-ARTIFACT_INPUTS"]) == {"uri": BASES[0].name, "digest": BASES[0].digest}
    assert not any("\n" in text for text in results.values())


def test_many_tags_fit_into_the_termination_message() -> None:
    results = tekton_results([f"registry.example.com/team/app:v1.{n}" for n in range(100)], DIGEST, BASES)
    # Tekton's own form of a result in the termination message: {"key":...,"value":...,"type":1}.
    message = json.dumps([{"key": name, "value": text, "type": 1} for name, text in results.items()])
    assert len(message) <= 4096


def test_an_image_without_a_name() -> None:
    assert tekton_results([], DIGEST, []) == {"IMAGE_DIGEST": DIGEST}


def test_builder_output_and_metadata(tmp_path: Path) -> None:
    files = ResultFiles(metadata_file=tmp_path / "metadata.json", builder_output=tmp_path / "out")
    write_results(files, REFERENCES, DIGEST, BASES, {"steps": [1]})
    lines = (tmp_path / "out" / "images").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"name": name, "digest": DIGEST} for name in REFERENCES]
    assert json.loads((tmp_path / "metadata.json").read_text()) == {
        "containerimage.digest": DIGEST,
        "image.name": ",".join(REFERENCES),
        "steps": [1],
    }


class _Put(BaseHTTPRequestHandler):
    """Takes PUTs; the first `failures` of them end with 503, those below /forbidden with 403."""

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.seen.append((self.path, self.headers["Content-Type"], body))
        status = 403 if self.path.startswith("/forbidden") else 503 if self.server.failures else 200
        self.server.failures = max(0, self.server.failures - 1)
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def https(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadingHTTPServer]:
    key = str(tmp_path / "key.pem")
    subprocess.run(
        f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout {key} "
        f"-out {tmp_path}/ca.pem -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost".split(),
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(str(tmp_path / "ca.pem"), key)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Put)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.seen, server.failures = [], 0
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_digest_is_put_to_a_presigned_url(https: ThreadingHTTPServer) -> None:
    https.failures = 1
    write_names(ResultFiles(f"https://localhost:{https.server_port}/digest?X-Signature=hidden"), REFERENCES, DIGEST)
    assert https.seen == [("/digest?X-Signature=hidden", "text/plain", DIGEST.encode())] * 2


def test_a_refused_put_does_not_tell_the_signature(https: ThreadingHTTPServer) -> None:
    files = ResultFiles(f"https://user:hidden@localhost:{https.server_port}/forbidden?X-Signature=hidden")
    with pytest.raises(BuildError) as raised:
        write_names(files, REFERENCES, DIGEST)
    assert raised.value.message == "--digest-file: PUT https://localhost/forbidden: 403 Forbidden"
    assert not raised.value.transient
    assert "hidden" not in repr(files)
    assert len(https.seen) == 1
