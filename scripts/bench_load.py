"""The load generator of `make bench-serving`: one process, gRPC on one event loop, requests made beforehand.

It speaks prelabel.v1 and the Open Inference Protocol, which other servers speak, too.

Messages are sent and received as bytes: what the client does with an answer is not the server's speed. Prints one line
of JSON with the answers in the time measured, their latencies, and the processor time that this process took.
"""

import asyncio
import contextlib
import json
import time
from dataclasses import dataclass
from typing import Any, Literal

import grpc.aio
import numpy as np
import tyro

from prelabel.client import MAX_MESSAGE_BYTES
from prelabel.v1 import prelabel_pb2 as pb

PREDICT = "/prelabel.v1.PrelabelService/Predict"
PREDICT_STREAM = "/prelabel.v1.PrelabelService/PredictStream"
INFER = "/inference.GRPCInferenceService/ModelInfer"
REQUESTS = 16
"""Different requests that are sent in turn."""
WARM_UP_S = 0.5
"""Answers of the first half second are not counted: connections open, buffers grow."""


@dataclass(frozen=True)
class Options:
    """Keep a number of requests in flight for a time and count what is answered."""

    address: str
    """HOST:PORT of the server."""
    kind: Literal["unary", "stream"] = "unary"
    """Calls of Predict, or streams of PredictStream."""
    model_name: str = ""
    """Speak the Open Inference Protocol instead, calls of ModelInfer, and ask this model."""
    connections: int = 1
    """Connections over which the calls are spread."""
    images: int = 1
    """Images of a request."""
    shape: tuple[int, int, int] = (28, 28, 1)
    """Height, width and channels of an image."""
    in_flight: int = 1
    """Unary calls at the same time; of a stream, requests sent and not answered."""
    streams: int = 1
    """Streams at the same time."""
    seconds: float = 5.0
    """How long answers are counted."""
    total_images: int = 0
    """End after so many images instead."""
    raw: bool = True
    """Ask for raw answers, as `prelabel.client` does."""


class Counter:
    """Counts answers once the warm-up is over."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self.started_s = time.perf_counter() + WARM_UP_S
        self.answers = 0
        self.latencies_s: list[float] = []
        self.ended_s = 0.0

    @property
    def over(self) -> bool:
        """The time is up, or the images are."""
        if self._options.total_images:
            return self.answers * self._options.images >= self._options.total_images
        return time.perf_counter() >= self.started_s + self._options.seconds

    def answered(self, sent_s: float) -> None:
        """Notes an answer to a request that was sent at a time."""
        now = time.perf_counter()
        if now >= self.started_s:
            self.answers += 1
            self.ended_s = now
            self.latencies_s.append(now - sent_s)


def main() -> None:
    """Runs the load and prints what came of it."""
    options = tyro.cli(Options, prog="python -m scripts.bench_load")
    print(json.dumps(asyncio.run(load(options))))


async def load(options: Options) -> dict[str, Any]:
    """Returns answers/s, images/s, latencies in ms and this process's processor seconds."""
    requests = make_requests(options)
    counter = Counter(options)
    cpu_s = time.process_time()
    limits = [
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ]
    limits += [("grpc.use_local_subchannel_pool", 1)]  # a connection of its own for each channel
    async with contextlib.AsyncExitStack() as stack:
        channels = [
            await stack.enter_async_context(grpc.aio.insecure_channel(options.address, options=limits))
            for _ in range(options.connections)
        ]
        if options.kind == "unary":
            unary = [channel.unary_unary(INFER if options.model_name else PREDICT) for channel in channels]
            calls = [call(unary[i % len(unary)], requests, counter) for i in range(options.in_flight)]
            await asyncio.gather(*calls)
        else:
            duplex = [channel.stream_stream(PREDICT_STREAM) for channel in channels]
            calls = [stream(duplex[i % len(duplex)], requests, counter, options) for i in range(options.streams)]
            await asyncio.gather(*calls)
    return result(options, counter, time.process_time() - cpu_s)


def result(options: Options, counter: Counter, cpu_s: float) -> dict[str, Any]:
    """Returns what was counted."""
    seconds = counter.ended_s - counter.started_s
    milliseconds = 1e3 * np.array(counter.latencies_s)
    return {
        "answers": counter.answers,
        "answers_per_s": counter.answers / seconds,
        "images_per_s": counter.answers * options.images / seconds,
        "latency_ms": {f"p{q:g}": float(np.percentile(milliseconds, q)) for q in (50, 90, 99, 99.9)},
        "client_cpu_s": cpu_s,
    }


def make_requests(options: Options) -> list[bytes]:
    """Returns requests with images of noise, so that nothing can be answered from a cache."""
    generator = np.random.default_rng(0)
    requests = []
    for _ in range(REQUESTS):
        shape = (options.images, *options.shape)
        pixels = generator.integers(0, 256, shape, np.uint8)
        if options.model_name:
            # Here, because a process that holds these messages cannot hold tritonclient's (`scripts.bench_triton`).
            from serving.inference_v2 import open_inference_pb2 as v2

            message = v2.ModelInferRequest(model_name=options.model_name, raw_input_contents=[pixels.tobytes()])
            message.inputs.add(name="images", datatype="UINT8", shape=shape)
            requests.append(message.SerializeToString())
        else:
            tensor = pb.ImageTensor(shape=shape, dtype=pb.DATA_TYPE_UINT8, data=pixels.tobytes())
            requests.append(pb.PredictRequest(tensor=tensor, raw_answers=options.raw).SerializeToString())
    return requests


async def call(predict: Any, requests: list[bytes], counter: Counter) -> None:
    """Sends one request after the other."""
    number = 0
    while not counter.over:
        sent_s = time.perf_counter()
        await predict(requests[number % len(requests)])
        counter.answered(sent_s)
        number += 1


async def stream(predict: Any, requests: list[bytes], counter: Counter, options: Options) -> None:
    """Keeps requests in flight on one stream."""
    running = predict()
    sent: list[float] = []
    for number in range(options.in_flight):
        sent.append(time.perf_counter())
        await running.write(requests[number % len(requests)])
    read = 0
    while not counter.over:
        await running.read()
        counter.answered(sent[read])
        sent[read] = time.perf_counter()
        await running.write(requests[read % len(requests)])
        read = (read + 1) % options.in_flight
    running.cancel()


if __name__ == "__main__":
    main()
