"""Spans from a real server in this process, with an exporter in memory and with a collector."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager

import grpc
import grpc.aio
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode

from prelabel.v1 import prelabel_pb2 as pb
from serving import spans
from serving.spans import Spans
from support.engines import ECHO_BUNDLE, EchoEngine
from support.inside import request
from support.scrape import serving

SERVICE = "prelabel.v1.PrelabelService"
TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Traced:
    """What a server's tracing has made; read it after the server has stopped."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.observer = Spans(provider)

    @property
    def finished(self) -> list[ReadableSpan]:
        return sorted(self._exporter.get_finished_spans(), key=lambda span: (span.start_time, -span.end_time))

    def children(self, parent: ReadableSpan) -> list[ReadableSpan]:
        return [span for span in self.finished if span.parent and span.parent.span_id == parent.context.span_id]

    def named(self, name: str) -> ReadableSpan:
        (span,) = [span for span in self.finished if span.name == name]
        return span


async def test_a_call_is_a_child_of_its_callers_span_and_has_its_stages_below() -> None:
    traced = Traced()
    async with serving(EchoEngine(), [traced.observer], max_batch_size=2) as (_, stub):
        metadata = (("traceparent", f"00-{TRACE_ID}-{SPAN_ID}-01"), ("x-request-id", "mine"))
        await stub.Predict(request([1, 2, 3]), metadata=metadata)
    call = traced.named(f"{SERVICE}/Predict")
    assert format(call.context.trace_id, "032x") == TRACE_ID
    assert call.parent
    assert format(call.parent.span_id, "016x") == SPAN_ID
    assert call.kind is SpanKind.SERVER
    assert dict(call.attributes or {}) == {
        "rpc.system": "grpc",
        "rpc.service": SERVICE,
        "rpc.method": "Predict",
        "rpc.grpc.status_code": 0,
        "prelabel.request_id": "mine",
        "prelabel.images": 3,
        "prelabel.priority": "interactive",
    }
    stages = traced.children(call)
    assert [span.name for span in stages] == ["decode", "queue", "infer", "infer", "encode"]
    batches = [dict(span.attributes or {}) for span in stages if span.name == "infer"]
    model_id = ECHO_BUNDLE.model_id
    assert [batch["prelabel.batch_size"] for batch in batches] == [2, 1]
    assert {batch["prelabel.model_id"] for batch in batches} == {model_id}
    times = [time for span in stages for time in (span.start_time, span.end_time)]
    assert times == sorted(times)
    assert call.start_time <= times[0]
    assert times[-1] <= call.end_time


async def test_without_a_caller_that_traces_a_call_is_the_root() -> None:
    traced = Traced()
    async with serving(EchoEngine(), [traced.observer]) as (_, stub):
        await stub.Predict(request([1]), metadata=(("traceparent", "nonsense"),))
        await stub.GetModel(pb.GetModelRequest())
    assert traced.named(f"{SERVICE}/Predict").parent is None
    assert traced.children(traced.named(f"{SERVICE}/GetModel")) == []


async def test_each_message_of_a_stream_has_a_span_of_its_own() -> None:
    traced = Traced()
    async with serving(EchoEngine(), [traced.observer]) as (_, stub):
        async for _ in stub.PredictStream(iter([request([1, 2]), request([3])])):
            pass
    call = traced.named(f"{SERVICE}/PredictStream")
    messages = traced.children(call)
    assert [span.name for span in messages] == ["request", "request"]
    assert sorted((span.attributes or {})["prelabel.images"] for span in messages) == [1, 2]
    for message in messages:
        assert [span.name for span in traced.children(message)] == ["decode", "queue", "infer", "encode"]


async def test_failures_say_so_and_callers_mistakes_are_no_errors_of_the_server() -> None:
    traced = Traced()
    async with serving(EchoEngine(broken=frozenset({5})), [traced.observer]) as (_, stub):
        for wrong in (request([5]), pb.PredictRequest()):
            with pytest.raises(grpc.aio.AioRpcError):
                await stub.Predict(wrong)
    failed, invalid = [span for span in traced.finished if span.kind is SpanKind.SERVER]
    assert failed.status.status_code is StatusCode.ERROR
    assert failed.attributes
    assert (failed.attributes["prelabel.cause"], failed.attributes["rpc.grpc.status_code"]) == ("internal", 13)
    assert invalid.status.status_code is StatusCode.UNSET
    assert invalid.attributes
    assert (invalid.attributes["prelabel.cause"], invalid.attributes["rpc.grpc.status_code"]) == ("invalid", 3)


async def test_calls_that_are_not_sampled_make_no_spans() -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    async with serving(EchoEngine(), [Spans(provider)]) as (_, stub):
        assert list((await stub.Predict(request([1]))).realness) == [1]
    assert exporter.get_finished_spans() == ()


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """An OTLP collector."""

    def __init__(self) -> None:
        self.services: dict[str, list[str]] = {}
        self.gate = threading.Event()
        self.gate.set()

    def Export(self, request: trace_service_pb2.ExportTraceServiceRequest, context: object) -> object:  # noqa: N802
        self.gate.wait(60)
        for one in request.resource_spans:
            (name,) = [a.value.string_value for a in one.resource.attributes if a.key == "service.name"]
            self.services.setdefault(name, []).extend(span.name for scope in one.scope_spans for span in scope.spans)
        return trace_service_pb2.ExportTraceServiceResponse()


@contextmanager
def collecting(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """Runs a collector that servers of this process send to."""
    collector = Collector()
    receiver = grpc.server(futures.ThreadPoolExecutor(1))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, receiver)
    port = receiver.add_insecure_port("127.0.0.1:0")
    receiver.start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
    yield collector
    receiver.stop(None).wait()


@pytest.mark.parametrize(("named", "service"), [("", "prelabel"), ("labels", "labels")])
async def test_a_stopping_server_sends_its_last_spans_to_the_collector(
    monkeypatch: pytest.MonkeyPatch, named: str, service: str
) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", named)
    with collecting(monkeypatch) as collector:
        async with serving(EchoEngine()) as (_, stub):
            await stub.Predict(request([1]))
    assert sorted(collector.services[service]) == sorted([f"{SERVICE}/Predict", "decode", "queue", "infer", "encode"])


async def test_a_collector_that_hangs_does_not_hold_a_stopping_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "3600")
    monkeypatch.setattr(spans, "_FLUSH_TIMEOUT_S", 0.1)
    with collecting(monkeypatch) as collector:
        collector.gate.clear()
        async with asyncio.timeout(30), serving(EchoEngine()) as (server, stub):
            await stub.Predict(request([1]))
            await server.stop()
        assert collector.services == {}
        collector.gate.set()
