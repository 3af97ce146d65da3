"""One log line for each call, at debug level."""

import logging

from serving.requests import Observer, Rpc

logger = logging.getLogger(__name__)


class AccessLog(Observer):
    """Writes what a call was and how it ended; nothing that a caller sent but its request id."""

    @staticmethod
    def wanted() -> bool:
        """Whether anybody would see the lines."""
        return logger.isEnabledFor(logging.DEBUG)

    def rpc_ended(self, rpc: Rpc) -> None:
        """Writes the line; the formatter adds the request id."""
        duration_ms = round(1000 * (rpc.ended_at_s - rpc.started_at_s), 3)
        fields = {"rpc": rpc.method, "code": rpc.code, "images": rpc.images, "duration_ms": duration_ms}
        logger.debug("call", extra={**fields, "peer": rpc.peer})
