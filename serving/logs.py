"""Log lines as JSON objects on stderr, one a line."""

import json
import logging
import warnings
from datetime import UTC, datetime

from serving.request_ids import REQUEST_ID

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """Formats a record with its time (UTC), level, logger, message, request id, `extra` fields and exception.

    Args:
        worker: Number of this worker process, which every line says; None: there is one process.
    """

    def __init__(self, worker: int | None = None) -> None:
        super().__init__()
        self._worker = {} if worker is None else {"worker": worker}

    def format(self, record: logging.LogRecord) -> str:
        """Returns one line."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **self._worker,
        }
        if (request_id := REQUEST_ID.get()) is not None:
            line["request_id"] = request_id
        line |= {name: value for name, value in vars(record).items() if name not in _STANDARD}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def demote_departures(record: logging.LogRecord) -> bool:
    """Brings the report of a client that hung up while its answer was being sent down to debug level.

    gRPC makes it an error with a traceback. Returns whether the record is still to be logged.
    """
    if record.exc_info and type(record.exc_info[1]).__name__ == "ExecuteBatchError":
        record.levelno, record.levelname, record.exc_info = logging.DEBUG, "DEBUG", None
    return logging.getLogger().isEnabledFor(record.levelno)


def configure(level: str, worker: int | None = None) -> None:
    """Sends every logger's records of at least `level` to stderr; `worker` as for `JsonFormatter`."""
    # Pillow warns of faults of images that it decodes all the same, tens of thousands of times over one file.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter(worker))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("grpc._cython.cygrpc").addFilter(demote_departures)
