import logging

import pytest

from serving.logs import demote_departures


class ExecuteBatchError(Exception):
    """As gRPC's: it cannot be imported from a public module."""


def record(error: Exception) -> logging.LogRecord:
    values = {"levelno": logging.ERROR, "levelname": "ERROR", "exc_info": (type(error), error, None)}
    return logging.makeLogRecord(values)


def test_a_client_that_hung_up_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    left = record(ExecuteBatchError())
    with caplog.at_level(logging.INFO):
        assert not demote_departures(left)
    with caplog.at_level(logging.DEBUG):
        assert demote_departures(left)
    assert (left.levelname, left.exc_info) == ("DEBUG", None)


def test_other_errors_of_grpc_stay_errors(caplog: pytest.LogCaptureFixture) -> None:
    other = record(ValueError())
    with caplog.at_level(logging.INFO):
        assert demote_departures(other)
    assert other.levelname == "ERROR"
    assert other.exc_info is not None
