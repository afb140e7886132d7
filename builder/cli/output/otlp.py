"""OpenTelemetry: the build's spans to a collector, by OTLP over HTTP in JSON.

Where and how is what the environment says (OpenTelemetry specification, "OTLP Exporter Configuration"):
OTEL_EXPORTER_OTLP_[TRACES_]ENDPOINT, _HEADERS and _TIMEOUT, OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES, and
OTEL_SDK_DISABLED and OTEL_TRACES_EXPORTER=none, which turn it off. KANIKO_TELEMETRY_ENDPOINT, a whole URL or one
without a path, counts where none of OpenTelemetry's own is set. TRACEPARENT (W3C Trace Context) names the span that
the build is part of, as pipelines hand it on.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any
from urllib.parse import unquote, urlsplit

from builder import __version__
from builder.cli.grammar import is_true
from builder.cli.output.redaction import Redactor
from builder.cli.output.spans import Span, Spans
from builder.events import Event, Listener, Message
from builder.urls import redacted

_PARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(?:-.*)?")
_SHORT = 2.0  # seconds for a collector that does not answer when the build failed, or somebody waits for its end
_INTERNAL = 1  # SPAN_KIND_INTERNAL
_OK, _ERROR = 1, 2  # STATUS_CODE_*


@dataclass(frozen=True, slots=True)
class Collector:
    """Where spans go. `timeout` in seconds; `headers` are secret. `keyword_only`: of a step, nothing but its first
    word is told (KANIKO_TELEMETRY_OMIT_DOCKERFILE)."""

    url: str
    headers: Mapping[str, str]
    timeout: float
    resource: Mapping[str, str]
    trace_id: str = ""
    parent_id: str = ""
    keyword_only: bool = False


def collector_of(env: Mapping[str, str]) -> Collector | None:
    """The collector that the environment names, if any."""
    exact = env.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "")
    endpoint = env.get("OTEL_EXPORTER_OTLP_ENDPOINT", "")
    if not (exact or endpoint):
        kaniko = urlsplit(env.get("KANIKO_TELEMETRY_ENDPOINT", ""))
        exact = kaniko.geturl() if kaniko.path.strip("/") else ""
        endpoint = kaniko.geturl()
    disabled = env.get("OTEL_SDK_DISABLED", "").lower() == "true" or env.get("OTEL_TRACES_EXPORTER") == "none"
    if disabled or not (exact or endpoint):
        return None
    headers = _pairs(env.get("OTEL_EXPORTER_OTLP_HEADERS", ""))
    headers |= _pairs(env.get("OTEL_EXPORTER_OTLP_TRACES_HEADERS", ""))
    timeout = env.get("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT") or env.get("OTEL_EXPORTER_OTLP_TIMEOUT", "")
    resource = {"service.name": "limpet", "service.version": __version__}
    resource |= _pairs(env.get("OTEL_RESOURCE_ATTRIBUTES", ""))
    if env.get("OTEL_SERVICE_NAME"):
        resource["service.name"] = env["OTEL_SERVICE_NAME"]
    parent = _PARENT.fullmatch(env.get("TRACEPARENT", ""))
    return Collector(
        exact or endpoint.rstrip("/") + "/v1/traces",
        headers,
        int(timeout) / 1000 if timeout.isdigit() else 10.0,
        resource,
        trace_id=parent[1] if parent else "",
        parent_id=parent[2] if parent else "",
        keyword_only=is_true(env.get("KANIKO_TELEMETRY_OMIT_DOCKERFILE", "")),
    )


def _pairs(text: str) -> dict[str, str]:
    """`key=value,key=value`, percent-encoded."""
    pairs = (pair.partition("=") for pair in text.split(",") if "=" in pair)
    return {unquote(key.strip()): unquote(value.strip()) for key, _, value in pairs}


class Exporter:
    """A listener that sends everything when it is left. A collector that does not take it is a warning, no more."""

    def __init__(self, collector: Collector, redactor: Redactor, listener: Listener) -> None:
        self._collector = collector
        self._redactor = redactor
        self._listener = listener
        self._spans = Spans()
        for value in collector.headers.values():
            redactor.add(value)

    def __enter__(self) -> Exporter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        patience = self._collector.timeout if error is None else min(self._collector.timeout, _SHORT)
        self._send(self._request(_ERROR if error else _OK), patience)

    def tell(self, event: Event) -> None:
        self._spans.tell(event)

    def _send(self, request: dict[str, Any], timeout: float) -> None:
        import requests  # few builds have a collector

        try:
            response = requests.post(
                self._collector.url,
                json=request,
                headers=dict(self._collector.headers),
                timeout=timeout,
            )
        except requests.RequestException as error:
            why = type(error).__name__
        else:
            if response.ok:
                return
            why = f"{response.status_code} {response.reason}"
        self._listener.tell(Message(f"OpenTelemetry: {redacted(self._collector.url)} took no trace: {why}", "warning"))

    def _request(self, status: int) -> dict[str, Any]:
        """An ExportTraceServiceRequest in JSON: ids in hexadecimal, 64-bit numbers as strings."""
        spans = self._spans.all()
        trace = self._collector.trace_id or secrets.token_hex(16)
        ids = {span.id: secrets.token_hex(8) for span in spans if span.id is not None}
        scope = {"scope": {"name": "limpet", "version": __version__}}
        encoded = [self._span(span, trace, ids, status) for span in spans]
        resource = {"attributes": _attributes(self._collector.resource)}
        return {"resourceSpans": [{"resource": resource, "scopeSpans": [{**scope, "spans": encoded}]}]}

    def _span(self, span: Span, trace: str, ids: Mapping[tuple[str | int, ...], str], status: int) -> dict[str, Any]:
        is_root = span.id == ()
        parent = self._collector.parent_id if is_root else ids.get(span.inside, ids[()])
        name = span.name.split()[0] if span.kind == "step" and self._collector.keyword_only else span.name
        return {
            "traceId": trace,
            "spanId": ids[span.id] if span.id is not None else secrets.token_hex(8),
            **({"parentSpanId": parent} if parent else {}),
            "name": self._redactor.mask(name),
            "kind": _INTERNAL,
            "startTimeUnixNano": self._time(span.began),
            "endTimeUnixNano": self._time(span.ended),
            "attributes": _attributes({"limpet.kind": span.kind, **span.attributes}),
            **({"status": {"code": status}} if is_root else {}),
        }

    def _time(self, moment: float) -> str:
        return str(self._spans.began_ns + round((moment - self._spans.began) * 1e9))


def _attributes(values: Mapping[str, str | int | bool]) -> list[dict[str, Any]]:
    return [{"key": key, "value": _value(value)} for key, value in values.items()]


def _value(value: str | int | bool) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"boolValue": value}
    return {"intValue": str(value)} if isinstance(value, int) else {"stringValue": value}
