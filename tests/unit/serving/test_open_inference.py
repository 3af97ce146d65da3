import contextlib
from types import SimpleNamespace
from typing import cast

import numpy as np

from prelabel.images import Pixels
from prelabel.predictions import PredictionBatch, Priority
from serving.batcher import Batcher
from serving.decoder import Decoder
from serving.inference_v2 import open_inference_pb2 as pb
from serving.model import Model
from serving.models import Models, Status
from serving.open_inference import OpenInferenceService, count_inputs
from serving.requests import Requests
from support.batchers import limits
from support.engines import EchoEngine, marked


class Recorder:
    """Stands in for the batcher and notes who waits and how long."""

    limits = limits()

    def __init__(self) -> None:
        self.priorities: list[Priority] = []
        self.timeouts_s: list[float | None] = []

    async def predict(self, images: Pixels, timeout_s: float | None, priority: Priority) -> PredictionBatch:
        self.priorities.append(priority)
        self.timeouts_s.append(timeout_s)
        return EchoEngine().predict(images)


class Deadline:
    def time_remaining(self) -> float:
        return 7.0


def service(recorder: Recorder) -> OpenInferenceService:
    model = Model(EchoEngine(), cast(Batcher, recorder), cast(Decoder, None))
    models = SimpleNamespace(
        lease=lambda version: contextlib.nullcontext(model),
        default=model,
        statuses=lambda: [Status("1", "serving")],
        requests=Requests(),
    )
    return OpenInferenceService(cast(Models, models))


def request(*marks: int) -> pb.ModelInferRequest:
    images = marked(list(marks))
    infer = pb.ModelInferRequest(model_name="echo", raw_input_contents=[images.tobytes()])
    infer.inputs.add(name="images", datatype="UINT8", shape=images.shape)
    return infer


async def test_priority_and_the_calls_deadline_reach_the_batcher() -> None:
    recorder = Recorder()
    plain, bulk, urgent = request(1), request(2), request(3)
    bulk.parameters["priority"].string_param = "bulk"
    urgent.parameters["priority"].uint64_param = 1
    for one in (plain, bulk, urgent):
        await service(recorder).ModelInfer(one, Deadline())
    assert recorder.priorities == ["interactive", "bulk", "interactive"]
    assert recorder.timeouts_s == [7.0, 7.0, 7.0]


async def test_answers_are_those_of_the_request() -> None:
    response = await service(Recorder()).ModelInfer(request(5, 8), Deadline())
    probabilities, realness = (np.frombuffer(raw, "<f4") for raw in response.raw_output_contents)
    assert probabilities.reshape(2, 2).tolist() == [[0, 1], [1, 0]]
    assert realness.tolist() == [5, 8]
    assert [list(output.shape) for output in response.outputs] == [[2, 2], [2]]


async def test_a_stopping_server_is_live_and_not_ready() -> None:
    stopping = service(Recorder())
    server, model = pb.ServerReadyRequest(), pb.ModelReadyRequest(name="echo")
    assert (await stopping.ServerReady(server, None)).ready
    assert (await stopping.ModelReady(model, None)).ready
    stopping.drain()
    assert (await stopping.ServerLive(pb.ServerLiveRequest(), None)).live
    assert not (await stopping.ServerReady(server, None)).ready
    assert not (await stopping.ModelReady(model, None)).ready


def test_a_request_costs_its_images_and_a_wrong_one_costs_one() -> None:
    assert count_inputs(request(1, 2, 3)) == 3
    assert count_inputs(pb.ModelInferRequest()) == 1
    lie = request(1)
    lie.inputs[0].shape[0] = 2**62
    assert count_inputs(lie) == 4096
    lie.inputs[0].shape[0] = -5
    assert count_inputs(lie) == 1
    assert count_inputs(pb.ModelMetadataRequest()) == 0
