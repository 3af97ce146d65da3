"""The load generator of `make bench-serving` that is NVIDIA's own client: `tritonclient`, asyncio, calls of ModelInfer.

It makes a message of each array and arrays of each answer, as its users' programs do; so it costs more processor time
than `scripts.bench_load`, of the cores that the server has, too.
"""

import asyncio
import json
import time
from typing import Any

import numpy as np
import tyro
from tritonclient.grpc import InferInput
from tritonclient.grpc.aio import InferenceServerClient

from scripts.bench_load import REQUESTS, Counter, Options, result


def main() -> None:
    """Runs the load and prints what came of it."""
    options = tyro.cli(Options, prog="python -m scripts.bench_triton")
    print(json.dumps(asyncio.run(load(options))))


async def load(options: Options) -> dict[str, Any]:
    """Returns what `scripts.bench_load.load` does."""
    shape = (options.images, *options.shape)
    batches = np.random.default_rng(0).integers(0, 256, (REQUESTS, *shape), np.uint8)
    counter = Counter(options)
    cpu_s = time.process_time()

    async def ask(client: Any) -> None:
        number = 0
        while not counter.over:
            sent_s = time.perf_counter()
            images = InferInput("images", shape, "UINT8")
            images.set_data_from_numpy(batches[number % REQUESTS])
            answer = await client.infer(options.model_name, [images])
            answer.as_numpy("probabilities")
            counter.answered(sent_s)
            number += 1

    async with InferenceServerClient(options.address) as client:
        await asyncio.gather(*(ask(client) for _ in range(options.in_flight)))
    return result(options, counter, time.process_time() - cpu_s)


if __name__ == "__main__":
    main()
