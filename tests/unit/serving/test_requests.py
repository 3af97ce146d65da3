import asyncio
from collections.abc import Sequence

import numpy as np
import pytest

from prelabel import errors
from prelabel.predictions import Priority
from serving.batcher import Batcher, BatchLimits
from serving.observer import BatchRun
from serving.requests import Cause, Observer, RequestRecord, Requests, Rpc
from support.engines import EchoEngine, marked


class Recorder(Observer):
    def __init__(self) -> None:
        self.ended: list[RequestRecord] = []

    def request_ended(self, request: RequestRecord) -> None:
        self.ended.append(request)


@pytest.mark.parametrize(
    ("error", "stopping", "cause"),
    [
        (errors.InputError("x"), False, "invalid"),
        (errors.ImageError("x"), False, "invalid"),
        (errors.ModelNotFoundError("x"), False, "no_model"),
        (errors.OverloadedError("x"), False, "queue_full"),
        (errors.ServerUnavailableError("x"), False, "no_model"),
        (errors.ServerUnavailableError("x"), True, "stopping"),
        (TimeoutError("x"), False, "expired"),
        (asyncio.CancelledError(), False, "cancelled"),
        (errors.RemoteError("x"), False, "internal"),
        (KeyError("x"), False, "internal"),
    ],
    ids=repr,
)
def test_each_end_has_its_cause_and_the_error_goes_on(error: BaseException, stopping: bool, cause: Cause) -> None:
    recorder = Recorder()
    requests = Requests([recorder])
    requests.stopping = stopping
    with pytest.raises(type(error)), requests.request() as record, record.stage("decode"):
        raise error
    assert recorder.ended == [record]
    assert record.cause == cause
    assert [stage.name for stage in record.stages] == ["decode"]
    assert not record.inferred


def test_a_cancellation_at_the_end_of_the_callers_patience_is_an_expiry() -> None:
    for timeout_s, cause in ((None, "cancelled"), (3600.0, "cancelled"), (0.0, "expired")):
        recorder = Recorder()
        requests = Requests([recorder])
        rpc = Rpc("service/Method", "id", "peer", streaming=False, timeout_s=timeout_s)
        with pytest.raises(asyncio.CancelledError), requests.rpc(rpc, {}), requests.request():
            raise asyncio.CancelledError
        assert [(one.rpc, one.cause) for one in recorder.ended] == [(rpc, cause)]


class BatcherRecorder:
    def __init__(self) -> None:
        self.told: list[object] = []

    def batch_ran(self, run: BatchRun) -> None:
        self.told.append(run)

    def request_left(self, arrived_at_s: float, priority: Priority, runs: Sequence[BatchRun]) -> None:
        self.told.append((priority, list(runs)))


async def test_the_batcher_tells_of_batches_and_requests_also_of_those_that_fail() -> None:
    observer = BatcherRecorder()
    engine = EchoEngine(broken=frozenset({4}))
    batcher = Batcher(engine, BatchLimits(2, 2, 0.0, 100, 1000, 1), observer)
    await batcher.predict(marked([1, 2, 3]), priority="bulk")
    with pytest.raises(errors.RemoteError):
        await batcher.predict(marked([4]))
    with pytest.raises(TimeoutError):
        await batcher.predict(marked([5]), timeout_s=0.0)
    await batcher.close()
    first, second, left, failed, failure, expired = observer.told
    assert isinstance(first, BatchRun)
    assert isinstance(second, BatchRun)
    assert isinstance(failed, BatchRun)
    assert [run.images for run in (first, second, failed)] == [2, 1, 1]
    assert left == ("bulk", [first, second])
    assert failure == ("interactive", [failed])
    assert expired == ("interactive", [])
    assert np.isfinite([failed.formed_at_s, failed.started_at_s, failed.ended_at_s]).all()
