"""What `make bench-serving` measures the server against: servers of the same API, and the engine without a server.

`python -m scripts.bench_servers KIND`: `empty` answers with constant bytes from grpc.aio, the ceiling of the transport;
`naive` is what grpcio's tutorial leads to, a thread pool that runs the session for each request.
"""

import asyncio
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import grpc
import grpc.aio
import numpy as np
import tyro

from prelabel.bundle import MODEL_FILE, load_bundle
from prelabel.client import MAX_MESSAGE_BYTES
from prelabel.engine import PrecisionChoice, RuntimeChoice, load_engine
from prelabel.v1 import prelabel_pb2 as pb
from scripts.bench_load import REQUESTS

SERVICE = "prelabel.v1.PrelabelService"
LIMITS = [("grpc.max_receive_message_length", MAX_MESSAGE_BYTES), ("grpc.max_send_message_length", MAX_MESSAGE_BYTES)]
THREADS = 16
"""Of the naive server: more change nothing."""


@dataclass(frozen=True)
class Options:
    """Serve until killed, or run the engine for a time; prints the port, or images/s."""

    kind: Literal["empty", "naive", "engine"]
    """What to run."""
    model: Path
    """The bundle."""
    batch: int = 256
    """Images of an inference of the engine alone."""
    threads: int = 2
    """Inferences of the engine alone at the same time."""
    seconds: float = 3.0
    """How long the engine runs for each line on standard input."""
    runtime: RuntimeChoice = "auto"
    """Of the engine alone, as the server has it."""
    precision: PrecisionChoice = "auto"
    """Of the engine alone, as the server has it."""


def main() -> None:
    """Runs one of them."""
    options = tyro.cli(Options, prog="python -m scripts.bench_servers")
    if options.kind == "engine":
        engine_alone(options)
    elif options.kind == "naive":
        naive(options)
    else:
        asyncio.run(empty(options))


async def empty(options: Options) -> None:
    """Answers each request with the same bytes; requests are not parsed."""
    answer = answer_bytes(len(load_bundle(options.model).classes))

    async def unary(request: bytes, context: Any) -> bytes:
        return answer

    async def stream(requests: Any, context: Any) -> Any:
        async for _ in requests:
            yield answer

    server = grpc.aio.server(options=LIMITS)
    handlers = {
        "Predict": grpc.unary_unary_rpc_method_handler(unary),
        "PredictStream": grpc.stream_stream_rpc_method_handler(stream),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


def naive(options: Options) -> None:
    """Runs ONNX Runtime's session, as it comes, for each request in a thread of grpcio's pool."""
    import onnxruntime

    bundle = load_bundle(options.model)
    session = onnxruntime.InferenceSession(options.model / MODEL_FILE, providers=["CPUExecutionProvider"])

    def predict(request: pb.PredictRequest, context: Any) -> pb.PredictResponse:
        images = np.frombuffer(request.tensor.data, np.uint8).reshape(tuple(request.tensor.shape))
        probabilities, realness = session.run(None, {bundle.input_name: images})
        return pb.PredictResponse(
            model_id=bundle.model_id,
            probabilities=probabilities.ravel().tolist(),
            realness=realness.tolist(),
            label_index=probabilities.argmax(axis=1).tolist(),
            confidence=probabilities.max(axis=1).tolist(),
        )

    def stream(requests: Any, context: Any) -> Any:
        for request in requests:
            yield predict(request, context)

    codec = (pb.PredictRequest.FromString, pb.PredictResponse.SerializeToString)
    handlers = {
        "Predict": grpc.unary_unary_rpc_method_handler(predict, *codec),
        "PredictStream": grpc.stream_stream_rpc_method_handler(stream, *codec),
    }
    server = grpc.server(ThreadPoolExecutor(THREADS), options=LIMITS)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    server.wait_for_termination()


def engine_alone(options: Options) -> None:
    """Runs inferences on all cores for each line on standard input; prints images/s."""
    engine = load_engine(
        options.model, "cpu", threads=1, runtime=options.runtime, precision=options.precision, callers=options.threads
    )
    # As many different batches as the load generator sends: one alone would stay in the core's own cache.
    shape = (REQUESTS, options.batch, *engine.bundle.input.shape)
    batches = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    engine.predict(batches[0])
    print(engine.execution_provider, flush=True)

    def count(end: float) -> int:
        inferences = 0
        while time.perf_counter() < end:
            engine.predict(batches[inferences % REQUESTS])
            inferences += 1
        return inferences

    with ThreadPoolExecutor(options.threads) as pool:
        while sys.stdin.readline():
            started = time.perf_counter()
            inferences = sum(pool.map(count, [started + options.seconds] * options.threads))
            images_per_s = inferences * options.batch / (time.perf_counter() - started)
            print(json.dumps({"images_per_s": images_per_s}), flush=True)


def answer_bytes(classes: int) -> bytes:
    """Returns an answer of the size that one image has."""
    return pb.PredictResponse(
        model_id="0" * 16, probabilities=[1 / classes] * classes, realness=[0.5], label_index=[0], confidence=[0.5]
    ).SerializeToString()


if __name__ == "__main__":
    main()
