"""What an operator sees of one server: metrics on a port of their own, and lines of the access log."""

import asyncio
from collections.abc import Callable

from serving.access_log import AccessLog
from serving.config import Config
from serving.metrics import Metrics
from serving.metrics_port import MetricsPort
from serving.models import Models


class Telemetry:
    """Lets the observers that the options ask for follow the requests to a server's models."""

    def __init__(self, config: Config, models: Models) -> None:
        self._config, self._models = config, models
        self._port: MetricsPort | None = None

    @property
    def port(self) -> int | None:
        """Where metrics are served; None: nowhere."""
        return None if self._port is None else self._port.port

    def open(self, ready: Callable[[], bool]) -> None:
        """Begins. What was opened before an error is closed by `close`.

        Args:
            ready: Whether the server can answer; asked at each scrape, from another thread.

        Raises:
            InputError: The metrics port cannot be listened on.
        """
        observers = self._models.requests.observers
        if AccessLog.wanted():
            observers.append(AccessLog())
        if self._config.metrics_port is not None:
            metrics = Metrics(self._models, ready)
            observers.append(metrics)
            self._port = MetricsPort(self._config.metrics_host, self._config.metrics_port, metrics.registry)

    async def close(self) -> None:
        """Closes the metrics port."""
        if self._port is not None:
            await asyncio.to_thread(self._port.close)
