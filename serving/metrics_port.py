"""Prometheus's way in: HTTP on a port of its own, answered by threads of its own, so the event loop never waits."""

import threading
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, start_http_server

from prelabel.errors import InputError


class MetricsPort:
    """Serves a registry to whoever can reach the port, until `close`."""

    def __init__(self, host: str, port: int, registry: CollectorRegistry) -> None:
        """Listens on `host` and `port`; 0 takes a free one.

        Raises:
            InputError: The address cannot be listened on.
        """
        self._server: WSGIServer
        self._thread: threading.Thread
        try:
            # Without brackets: an IPv6 address is written as for --host.
            self._server, self._thread = start_http_server(port, host.strip("[]"), registry)
        except OSError as error:
            raise InputError(
                f"cannot listen on {host}:{port} for metrics ({error.strerror or error}): choose another "
                "--metrics-port (0 takes a free one) or --metrics-host"
            ) from error
        self.port: int = self._server.server_port

    def close(self) -> None:
        """Ends the threads and frees the port; blocks for up to half a second."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
