"""Calls and the stages of their requests as OpenTelemetry spans; imported only where traces are wanted.

Spans of stages are made when their request has ended, with the times that were noted on the way.
"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import grpc
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

import prelabel
from serving.requests import Observer, RequestRecord, Rpc, Stage

_FLUSH_TIMEOUT_S = 2.0
"""How long a stopping server waits for a collector: with the 25 s for requests still below Kubernetes' 30 s."""

_SERVER_ERRORS = {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
"""The codes that OpenTelemetry's conventions call an error of the server's span."""


class _Clock:
    """Brings times of `time.monotonic` to nanoseconds since 1970: one shift for a call, so that its order stays."""

    def __init__(self) -> None:
        self._shift_ns = time.time_ns() - time.monotonic_ns()

    def to_epoch_ns(self, at_s: float) -> int:
        return self._shift_ns + int(at_s * 1e9)


@dataclass(frozen=True)
class _Call:
    span: Span
    clock: _Clock


class Spans(Observer):
    """Makes spans with a provider that belongs to one server."""

    def __init__(self, provider: TracerProvider, exporter: OTLPSpanExporter | None = None) -> None:
        """`exporter` is told to give up when a stopping server cannot reach the collector."""
        self._provider, self._exporter = provider, exporter
        self._tracer = provider.get_tracer("prelabel", prelabel.__version__)
        self._propagator = TraceContextTextMapPropagator()
        self._calls: dict[Rpc, _Call] = {}

    def rpc_started(self, rpc: Rpc, metadata: Mapping[str, str | bytes]) -> None:
        """Begins the span of a call, as a child of the caller's if `traceparent` names one."""
        parent = self._propagator.extract(dict(metadata), Context())
        service, _, method = rpc.method.partition("/")
        attributes = {
            "rpc.system": "grpc",
            "rpc.service": service,
            "rpc.method": method,
            "prelabel.request_id": rpc.request_id,
        }
        clock = _Clock()
        span = self._tracer.start_span(
            rpc.method, parent, SpanKind.SERVER, attributes, start_time=clock.to_epoch_ns(rpc.started_at_s)
        )
        self._calls[rpc] = _Call(span, clock)

    def rpc_ended(self, rpc: Rpc) -> None:
        """Ends the span of a call."""
        call = self._calls.pop(rpc)
        span = call.span
        span.set_attribute("rpc.grpc.status_code", grpc.StatusCode[rpc.code].value[0])
        span.set_attribute("prelabel.images", rpc.images)
        if rpc.code in _SERVER_ERRORS:
            span.set_status(Status(StatusCode.ERROR, rpc.code))
        span.end(call.clock.to_epoch_ns(rpc.ended_at_s))

    def request_ended(self, request: RequestRecord) -> None:
        """Adds the request's stages to its call; in a stream under a span for each request."""
        call = self._calls.get(request.rpc)
        if call is None or not call.span.is_recording():
            return
        if not request.rpc.streaming:
            self._add_stages(request, call.span, call.clock)
            return
        span = self._tracer.start_span(
            "request",
            set_span_in_context(call.span, Context()),
            start_time=call.clock.to_epoch_ns(request.started_at_s),
        )
        span.set_attribute("prelabel.images", request.images)
        self._add_stages(request, span, call.clock)
        span.end(call.clock.to_epoch_ns(request.ended_at_s))

    async def close(self) -> None:
        """Sends what is left, if the collector takes it in time."""
        loop = asyncio.get_running_loop()
        sending = loop.run_in_executor(None, self._provider.shutdown)
        done, _ = await asyncio.wait({sending}, timeout=_FLUSH_TIMEOUT_S)
        if not done and self._exporter is not None:
            # Ends the exporter's tries in the other thread, which then returns.
            await loop.run_in_executor(None, self._exporter.shutdown)
        await sending

    def _add_stages(self, request: RequestRecord, parent: Span, clock: "_Clock") -> None:
        if request.cause:
            parent.set_attribute("prelabel.cause", request.cause)
        if request.priority:
            parent.set_attribute("prelabel.priority", request.priority)
        start = partial(self._tracer.start_span, context=set_span_in_context(parent, Context()))
        for stage in request.stages:
            span = start(stage.name, attributes=_attributes(stage), start_time=clock.to_epoch_ns(stage.started_at_s))
            span.end(clock.to_epoch_ns(stage.ended_at_s))


def to_collector() -> Spans:
    """Returns an observer that sends to the collector of the OTEL_* variables; they also choose what is sampled."""
    ours = Resource({SERVICE_NAME: "prelabel", SERVICE_VERSION: prelabel.__version__})
    named = Resource.create()
    if str(named.attributes[SERVICE_NAME]).startswith("unknown_service"):
        named = named.merge(ours)
    provider = TracerProvider(resource=named, shutdown_on_exit=False)
    exporter = OTLPSpanExporter()
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return Spans(provider, exporter)


def _attributes(stage: Stage) -> dict[str, AttributeValue]:
    if stage.run is None:
        return {}
    return {"prelabel.batch_size": stage.run.images, "prelabel.model_id": stage.run.model_id}
