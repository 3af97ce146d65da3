import logging
import warnings

import pytest

from serving import logs
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


def test_what_pillow_thinks_of_an_image_is_no_log_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        logs.configure("info")
        warnings.warn_explicit("Corrupt EXIF data", UserWarning, "Image.py", 1, module="PIL.Image")
        warnings.warn_explicit("another", UserWarning, "other.py", 1, module="other")
    assert [str(one.message) for one in told] == ["another"]
