"""What an operator sees of one server: metrics on a port of their own, traces, and lines of the access log."""

import asyncio
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from prometheus_client import generate_latest

from serving.access_log import AccessLog
from serving.config import Config
from serving.gpu import gpu_metrics
from serving.metrics import Metrics
from serving.metrics_port import MetricsPort
from serving.models import Models
from serving.tracing import tracing

if TYPE_CHECKING:
    from serving.spans import Spans


class Telemetry:
    """Lets the observers that the options and the environment ask for follow the requests to a server's models."""

    def __init__(self, config: Config, models: Models) -> None:
        self._config, self._models = config, models
        self._metrics: Metrics | None = None
        self._port: MetricsPort | None = None
        self._spans: Spans | None = None

    @property
    def port(self) -> int | None:
        """Where metrics are served; None: nowhere."""
        return None if self._port is None else self._port.port

    def open(self, ready: Callable[[], bool]) -> None:
        """Begins. What was opened before an error is closed by `close`.

        Args:
            ready: Whether the server can answer; asked at each scrape, from another thread.

        Raises:
            InputError: The metrics port cannot be listened on; or see `serving.tracing`.
        """
        observers = self._models.requests.observers
        if AccessLog.wanted():
            observers.append(AccessLog())
        self._spans = tracing(os.environ)
        if self._spans is not None:
            observers.append(self._spans)
        if self._config.metrics_port is not None:
            self._metrics = Metrics(self._models, ready)
            observers.append(self._metrics)
            if self._config.processes == 1:  # the supervisor opens one port for all
                if gpus := gpu_metrics():
                    self._metrics.registry.register(gpus)
                self._port = MetricsPort(self._config.metrics_host, self._config.metrics_port, self._metrics.registry)

    def metrics_text(self) -> str:
        """Returns the metrics in Prometheus's text format; nothing where there are none."""
        return "" if self._metrics is None else generate_latest(self._metrics.registry).decode()

    async def close(self) -> None:
        """Sends the last spans and closes the metrics port."""
        if self._spans is not None:
            await self._spans.close()
        if self._port is not None:
            await asyncio.to_thread(self._port.close)
