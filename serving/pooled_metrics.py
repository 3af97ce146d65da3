"""The metrics of several worker processes on one port: each worker's series with its number as the label `worker`.

Summed up instead, a counter would fall when a worker is started anew, and Prometheus would take that for a flood of
events. A query adds up what it wants: `sum without (worker) (rate(...))`.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from serving.gpu import gpu_metrics


@dataclass(frozen=True)
class Pool:
    """What a supervisor knows of its workers at one moment."""

    workers: int
    """How many there should be."""
    restarts: int
    """How often one was started anew."""
    texts: Mapping[int, str]
    """Number of a worker that serves -> its metrics in Prometheus's text format."""


class PooledMetrics(Collector):
    """Asks for the workers' metrics at each scrape."""

    def __init__(self, pool: Callable[[], Pool]) -> None:
        """`pool` is called from the scraper's thread, and may take its time."""
        self._pool = pool

    def registry(self) -> CollectorRegistry:
        """Returns a registry with these metrics and those of the machine's GPUs."""
        registry = CollectorRegistry()
        registry.register(self)
        if gpus := gpu_metrics():
            registry.register(gpus)
        return registry

    def collect(self) -> Iterable[Metric]:
        """Yields the supervisor's own metrics, then the workers'."""
        pool = self._pool()
        yield GaugeMetricFamily("prelabel_workers", "Worker processes that there should be.", pool.workers)
        yield GaugeMetricFamily("prelabel_workers_serving", "Worker processes that can answer.", len(pool.texts))
        yield CounterMetricFamily("prelabel_worker_restarts", "Worker processes that were started anew.", pool.restarts)
        families: dict[str, Metric] = {}
        for number, text in pool.texts.items():
            for family in text_string_to_metric_families(text):
                merged = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                for sample in family.samples:
                    merged.samples.append(sample._replace(labels={**sample.labels, "worker": str(number)}))
        yield from families.values()
