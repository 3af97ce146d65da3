"""One server's Prometheus metrics. docs/serving.md lists them; a test compares the list with what is exposed.

Counted once for each call, request or batch, never for each image.
"""

import time
from collections.abc import Callable, Iterable
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

import prelabel
from prelabel.predictions import Priority
from serving.batcher import Batcher
from serving.model import Model
from serving.models import Models
from serving.observer import BatchRun
from serving.requests import Cause, Observer, RequestRecord, Rpc

_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
"""From the decoding of one small image to a request that waited behind a full queue."""

_IMAGES = tuple(2**exponent for exponent in range(13))
"""1 to 4096, the largest request."""

_REFUSALS: dict[str, Cause] = {
    "UNAUTHENTICATED": "unauthenticated",
    "PERMISSION_DENIED": "forbidden",
    "RESOURCE_EXHAUSTED": "rate_limited",
}
"""What a call that was refused at the door has for a code."""

_OUTCOMES = ("answered", "unusable", "rejected", "abandoned", "failed")


class Metrics(Observer):
    """A registry of its own, so that several servers can live in one process."""

    def __init__(self, models: Models, ready: Callable[[], bool]) -> None:
        """Exposes zeros from the start, so that rates are right from the first event on.

        Args:
            models: Asked at each scrape, from another thread, what is loaded and what waits.
            ready: Whether the server can answer; asked likewise.
        """
        self.registry = CollectorRegistry()
        # A second series for each of them that says when it was first used: nobody asks that of a server.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._rpcs = Counter("prelabel_rpcs", "Calls that ended.", ["rpc", "code"], registry=self.registry)
        images = Counter("prelabel_images", "Images of requests that ended.", ["outcome"], registry=self.registry)
        self._images = {outcome: images.labels(outcome) for outcome in _OUTCOMES}
        rejections = Counter(
            "prelabel_rejections", "Requests that never reached the engine.", ["cause"], registry=self.registry
        )
        self._rejections = {cause: rejections.labels(cause) for cause in get_args(Cause)}
        self._request = Histogram(
            "prelabel_request_seconds",
            "One request, from its arrival to its answer or error.",
            ["rpc"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._decode = self._histogram("prelabel_decode_seconds", "From message to tensor.")
        queue = Histogram(
            "prelabel_queue_seconds",
            "From acceptance to the first inference.",
            ["priority"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._queue = {priority: queue.labels(priority) for priority in get_args(Priority)}
        self._infer = self._histogram("prelabel_infer_seconds", "One batch in the engine.")
        self._encode = self._histogram("prelabel_encode_seconds", "From the engine's answer to the response.")
        self._batch = self._histogram("prelabel_batch_images", "Images of one batch.", _IMAGES)
        self.registry.register(_ServerState(models, ready))
        ProcessCollector(registry=self.registry)

    def rpc_ended(self, rpc: Rpc) -> None:
        """Counts a call, and what was refused before its request began."""
        self._rpcs.labels(rpc.method, rpc.code).inc()
        if rpc.code in _REFUSALS and "queue_full" not in rpc.causes:
            self._rejections[_REFUSALS[rpc.code]].inc()

    def request_ended(self, request: RequestRecord) -> None:
        """Counts a request and its images, and how long its stages took."""
        self._request.labels(request.rpc.method).observe(request.ended_at_s - request.started_at_s)
        for stage in request.stages:
            duration_s = stage.ended_at_s - stage.started_at_s
            if stage.name == "decode":
                self._decode.observe(duration_s)
            elif stage.name == "encode":
                self._encode.observe(duration_s)
            elif stage.name == "queue" and request.priority:
                self._queue[request.priority].observe(duration_s)
        if request.cause is None:
            self._images["answered"].inc(request.images - request.unusable)
            self._images["unusable"].inc(request.unusable)
        elif not request.inferred:
            self._rejections[request.cause].inc()
            self._images["rejected"].inc(request.images)
        else:
            self._images["failed" if request.cause == "internal" else "abandoned"].inc(request.images)

    def batch_ran(self, run: BatchRun) -> None:
        """Counts a batch; once, however many requests are in it."""
        self._batch.observe(run.images)
        self._infer.observe(run.ended_at_s - run.started_at_s)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...] = _SECONDS) -> Histogram:
        return Histogram(name, text, buckets=buckets, registry=self.registry)


class _ServerState(Collector):
    """What is looked up at each scrape, in the scraper's thread."""

    def __init__(self, models: Models, ready: Callable[[], bool]) -> None:
        self._models, self._ready = models, ready

    def collect(self) -> Iterable[Metric]:
        loaded = self._models.loaded()
        batchers = [model.batcher for model in loaded]
        yield GaugeMetricFamily("prelabel_ready", "1 where the server can answer.", float(self._ready()))
        yield InfoMetricFamily("prelabel_build", "The server's program.", {"version": prelabel.__version__})
        info = InfoMetricFamily("prelabel_model", "The models in memory.", labels=[])
        # A bundle that was put back can be there twice, once on its way out; a series cannot.
        for labels in sorted({tuple(_model_labels(model).items()) for model in loaded}):
            info.add_metric([], dict(labels))
        yield info
        failed = GaugeMetricFamily("prelabel_models_failed", "Versions that could not be loaded.", self._models.failed)
        yield failed
        yield from _queue_gauges(batchers)
        images = sum(batcher.limits.max_queue_images for batcher in batchers)
        yield GaugeMetricFamily("prelabel_queue_limit_images", "Most unanswered images.", images)
        size_bytes = sum(batcher.limits.max_queue_bytes for batcher in batchers)
        yield GaugeMetricFamily("prelabel_queue_limit_bytes", "Most bytes of unanswered images.", size_bytes)


def _model_labels(model: Model) -> dict[str, str]:
    bundle = model.engine.bundle
    return {
        "model_id": bundle.model_id,
        "name": bundle.name,
        "version": model.version,
        "execution_provider": model.engine.execution_provider,
    }


def _queue_gauges(batchers: list[Batcher]) -> Iterable[Metric]:
    waiting = GaugeMetricFamily("prelabel_queue_waiting_images", "In no batch yet.", labels=["priority"])
    images = GaugeMetricFamily("prelabel_queue_unanswered_images", "Accepted, not yet answered.", labels=["priority"])
    sizes = GaugeMetricFamily("prelabel_queue_unanswered_bytes", "Their pixels.", labels=["priority"])
    age = GaugeMetricFamily(
        "prelabel_queue_oldest_age_seconds", "How long the oldest waiting request waits.", labels=["priority"]
    )
    states = [batcher.queue_state() for batcher in batchers]
    now_s = time.monotonic()
    for priority in get_args(Priority):
        queues = [state[priority] for state in states]
        waiting.add_metric([priority], sum(queue.waiting_images for queue in queues))
        images.add_metric([priority], sum(queue.unanswered_images for queue in queues))
        sizes.add_metric([priority], sum(queue.unanswered_bytes for queue in queues))
        arrivals = [queue.oldest_arrived_at_s for queue in queues if queue.oldest_arrived_at_s is not None]
        age.add_metric([priority], max(0.0, now_s - min(arrivals)) if arrivals else 0.0)
    return waiting, images, sizes, age
