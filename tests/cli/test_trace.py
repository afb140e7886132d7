"""--trace, and OpenTelemetry: what the spans of a build say, and who may read them."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import ParseDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from builder.cli.output.otlp import Collector, collector_of
from builder.cli.output.spans import Spans
from builder.events import StageFinished, StageStarted, StepFinished, StepStarted, Transfer, Worked
from tests.cli.conftest import Limpet

DOCKERFILE = "FROM scratch AS files\nCOPY a /x/\nFROM scratch\nCOPY --from=files /x /y\nLABEL a=b\n"


@pytest.fixture
def context(tmp_path: Path) -> Path:
    context = tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text(DOCKERFILE)
    (context / "a").write_text("a")
    return context


def complete(path: Path) -> tuple[list[dict[str, Any]], dict[int, str]]:
    """The complete events of a trace file, and the names of its tracks."""
    events = json.loads(path.read_text())["traceEvents"]
    tracks = {event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"}
    return [event for event in events if event["ph"] == "X"], tracks


def test_a_trace_has_every_stage_and_step_on_its_track(limpet: Limpet, context: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace.json"
    result = limpet(f"--context={context}", "--no-push", f"--oci-layout-path={tmp_path / 'layout'}", f"--trace={trace}")
    assert result.returncode == 0, result.stderr
    spans, tracks = complete(trace)
    found = {(tracks[span["tid"]], span["cat"], span["name"]) for span in spans}
    assert {
        ("build", "build", "build"),
        ("stage files", "stage", "stage files"),
        ("stage files", "step", "COPY a /x/"),
        ("stage 1", "step", "COPY --from=files /x /y"),
        ("stage 1", "step", "LABEL a=b"),
    } <= found
    assert any(track.startswith("compress") for track, _, _ in found)
    copied = next(span for span in spans if span["name"] == "COPY --from=files /x /y" and span["cat"] == "step")
    assert copied["args"]["layer"].startswith("sha256:")
    # Viewers draw the spans of one track inside one another: none may cross another's end.
    for track in tracks:
        open_until: list[int] = []
        for span in sorted((s for s in spans if s["tid"] == track), key=lambda s: (s["ts"], -s["dur"])):
            while open_until and open_until[-1] <= span["ts"]:
                open_until.pop()
            assert not open_until or span["ts"] + span["dur"] <= open_until[-1]
            open_until.append(span["ts"] + span["dur"])


def test_a_failed_build_has_a_trace(limpet: Limpet, context: Path, tmp_path: Path) -> None:
    (context / "Dockerfile").write_text("FROM scratch\nCOPY a /\nCOPY missing /\n")
    trace = tmp_path / "trace.json"
    assert limpet(f"--context={context}", "--no-push", f"--trace={trace}").returncode == 1
    assert "COPY missing /" in {span["name"] for span in complete(trace)[0]}


def test_a_trace_that_cannot_be_written_is_said_before_the_build(limpet: Limpet, context: Path) -> None:
    result = limpet(f"--context={context}", "--no-push", "--trace=/nowhere/trace.json")
    assert result.returncode == 1
    assert "--trace: cannot write /nowhere/trace.json: No such file or directory" in result.stderr
    assert "COPY" not in result.stderr


@contextmanager
def collector(status: int = 200) -> Iterator[tuple[str, list[tuple[str, dict[str, str], bytes]]]]:
    """An HTTP server, and what was posted to it."""
    posted: list[tuple[str, dict[str, str], bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            posted.append((self.path, {key.lower(): value for key, value in self.headers.items()}, body))
            self.send_response(status)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", posted
    finally:
        server.shutdown()
        server.server_close()


def parsed(body: bytes) -> ExportTraceServiceRequest:
    """OpenTelemetry's own definition reads it, and knows every field.

    OTLP's JSON has ids in hexadecimal where protobuf's has base64.
    """
    value = json.loads(body)
    for resource in value["resourceSpans"]:
        for scope in resource["scopeSpans"]:
            for span in scope["spans"]:
                for key in {"traceId", "spanId", "parentSpanId"} & span.keys():
                    span[key] = base64.b64encode(bytes.fromhex(span[key])).decode()
    return ParseDict(value, ExportTraceServiceRequest())


def test_spans_reach_a_collector(limpet: Limpet, context: Path, tmp_path: Path) -> None:
    with collector() as (url, posted):
        result = limpet(
            f"--context={context}",
            "--no-push",
            env={
                "OTEL_EXPORTER_OTLP_ENDPOINT": url,
                "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20hidden-word",
                "OTEL_SERVICE_NAME": "images",
                "TRACEPARENT": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            },
        )
    assert result.returncode == 0, result.stderr
    assert "OpenTelemetry" not in result.stderr
    ((path, headers, body),) = posted
    assert path == "/v1/traces"
    assert headers["content-type"] == "application/json"
    assert headers["authorization"] == "Bearer hidden-word"
    (resource,) = parsed(body).resource_spans
    assert {pair.key: pair.value.string_value for pair in resource.resource.attributes}["service.name"] == "images"
    spans = list(resource.scope_spans[0].spans)
    assert {span.trace_id.hex() for span in spans} == {"0af7651916cd43dd8448eb211c80319c"}
    by_name = {span.name: span for span in spans}
    assert by_name["build"].parent_span_id.hex() == "b7ad6b7169203331"
    assert by_name["build"].status.code == 1
    assert by_name["stage files"].parent_span_id == by_name["build"].span_id
    assert by_name["LABEL a=b"].parent_span_id == by_name["stage 1"].span_id
    assert all(span.start_time_unix_nano <= span.end_time_unix_nano for span in spans)
    assert len({span.span_id for span in spans}) == len(spans)


def test_kanikos_variables_name_a_collector_that_does_not_see_the_dockerfile(limpet: Limpet, context: Path) -> None:
    with collector() as (url, posted):
        env = {"KANIKO_TELEMETRY_ENDPOINT": url, "KANIKO_TELEMETRY_OMIT_DOCKERFILE": "true"}
        assert limpet(f"--context={context}", "--no-push", env=env).returncode == 0
    ((path, _, body),) = posted
    assert path == "/v1/traces"
    assert b"a=b" not in body
    assert "LABEL" in {span.name for span in parsed(body).resource_spans[0].scope_spans[0].spans}


@pytest.mark.parametrize("status", [401, 503])
def test_a_collector_that_refuses_is_a_warning(limpet: Limpet, context: Path, status: int) -> None:
    with collector(status) as (url, posted):
        env = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{url}/here", "OTEL_EXPORTER_OTLP_HEADERS": "key=hidden-word"}
        result = limpet(f"--context={context}", "--no-push", env=env)
    assert result.returncode == 0
    assert [path for path, _, _ in posted] == ["/here"]
    assert f"OpenTelemetry: {url}/here took no trace: {status}" in result.stderr
    assert "hidden-word" not in result.stderr


def test_a_collector_that_is_not_there_is_a_warning(limpet: Limpet, context: Path) -> None:
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}
    result = limpet(f"--context={context}", "--no-push", env=env)
    assert result.returncode == 0
    assert "took no trace: ConnectionError" in result.stderr


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318/"}, "http://c:4318/v1/traces"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c/x"}, "http://c/x"),
        ({"KANIKO_TELEMETRY_ENDPOINT": "http://c:4318"}, "http://c:4318/v1/traces"),
        ({"KANIKO_TELEMETRY_ENDPOINT": "http://c/x"}, "http://c/x"),
        ({"KANIKO_TELEMETRY_ENDPOINT": "http://k/x", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c"}, "http://c/v1/traces"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_SDK_DISABLED": "true"}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_TRACES_EXPORTER": "none"}, None),
    ],
)
def test_the_environment_names_the_collector(env: dict[str, str], expected: str | None) -> None:
    found = collector_of(env)
    assert (found and found.url) == expected


def test_timeouts_are_milliseconds_and_parents_well_formed() -> None:
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_EXPORTER_OTLP_TIMEOUT": "2500", "TRACEPARENT": "nonsense"}
    found = collector_of(env)
    assert isinstance(found, Collector)
    assert (found.timeout, found.trace_id, found.parent_id) == (2.5, "", "")


def test_what_runs_inside_a_step_belongs_to_it() -> None:
    spans = Spans()
    spans.tell(StageStarted("s", "base", 2))
    spans.tell(Worked("root", "open the root", spans.began, 0.5, "s"))
    spans.tell(StepStarted("s", 1, 2, "RUN a"))
    spans.tell(Worked("run", "RUN a", spans.began, 0.5, "s"))
    spans.tell(StepStarted("s", 2, 2, "RUN b"))
    spans.tell(Worked("compress", "RUN a", spans.began, 0.5, "s"))  # meanwhile the stage went on
    spans.tell(StepFinished("s", 1, 0.5, layer_digest="sha256:1", layer_size=7, reason="RUN: changed"))
    spans.tell(Transfer("k", "pull", "sha256:2", 0, 9))
    spans.tell(Transfer("k", "pull", "sha256:2", 9, 9, finished=True))
    spans.tell(StageFinished("s", 1.0))
    found = {(span.kind, span.name): span for span in spans.all()}
    assert found["run", "RUN a"].inside == ("s", 1)
    assert found["root", "open the root"].inside == ("s",)
    assert found["compress", "RUN a"].inside == ("s",)
    assert found["step", "RUN a"].attributes == {
        "cached": False,
        "layer": "sha256:1",
        "bytes": 7,
        "reason": "RUN: changed",
    }
    assert found["pull", "pull sha256:2"].attributes == {"bytes": 9}
    assert found["step", "RUN b"].ended <= found["stage", "stage s"].ended
