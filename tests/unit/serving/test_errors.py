import inspect
import json
import logging

import grpc
import pytest

from prelabel import errors
from serving import logs
from serving.errors import STATUS, to_status

INTERNAL = grpc.StatusCode.INTERNAL
EXPECTED = {
    errors.PrelabelError: INTERNAL,
    errors.InputError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.ImageError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.BundleError: INTERNAL,
    errors.ModelNotFoundError: grpc.StatusCode.NOT_FOUND,
    errors.UnsupportedError: grpc.StatusCode.UNIMPLEMENTED,
    errors.DeviceError: INTERNAL,
    errors.TrainingError: INTERNAL,
    errors.ParityError: INTERNAL,
    errors.ServerUnavailableError: grpc.StatusCode.UNAVAILABLE,
    errors.OverloadedError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.AccessError: grpc.StatusCode.UNAUTHENTICATED,
    errors.RemoteError: INTERNAL,
    errors.ModelChangedError: INTERNAL,
    errors.StorageError: INTERNAL,
    errors.WorkerError: INTERNAL,
}


def test_every_error_of_prelabel_has_an_expected_status() -> None:
    classes = {cls for _, cls in inspect.getmembers(errors, inspect.isclass) if cls.__module__ == errors.__name__}
    assert classes == set(EXPECTED)
    assert {cls for cls in STATUS if issubclass(cls, errors.PrelabelError)} <= classes


@pytest.mark.parametrize(("kind", "code"), EXPECTED.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_errors_become_status(kind: type[Exception], code: grpc.StatusCode) -> None:
    given, details = to_status(kind("the text"), "/service/Method")
    assert given is code
    assert (details == "the text") == (code is not INTERNAL)


def test_an_expired_request_is_deadline_exceeded() -> None:
    assert to_status(TimeoutError("late"), "/m") == (grpc.StatusCode.DEADLINE_EXCEEDED, "late")


def test_unknown_errors_leak_nothing_but_an_id_that_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        code, details = to_status(KeyError("/secret/path"), "/service/Method")
    assert code is INTERNAL
    assert "secret" not in details
    (record,) = caplog.records
    line = json.loads(logs.JsonFormatter().format(record))
    assert line["error_id"] in details
    assert line["method"] == "/service/Method"
    assert line["level"] == "error"
    assert "KeyError: '/secret/path'" in line["exception"]


def test_two_unknown_errors_have_two_ids() -> None:
    assert to_status(KeyError(), "/m")[1] != to_status(KeyError(), "/m")[1]
