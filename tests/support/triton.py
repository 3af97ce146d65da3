"""What NVIDIA's `tritonclient` gets from a server.

It registers protobuf messages of the names that serving/inference_v2 has, and one process cannot hold both: these
functions run in a process of their own (`tests/integration/test_tritonclient.py`) and return plain data.
"""

import asyncio
import queue
from collections.abc import Callable
from typing import Any

import numpy as np


def run(function: Callable[..., Any], *arguments: object) -> Any:
    """Runs a function of this file; Triton's exceptions cannot be sent to another process."""
    from tritonclient.utils import InferenceServerException

    try:
        return function(*arguments)
    except InferenceServerException as error:
        raise AssertionError(str(error)) from None


def inputs(module: Any, images: Any) -> list[Any]:
    """`images` as an array uint8 [B, H, W, C], or as a list of B files."""
    if isinstance(images, np.ndarray):
        one = module.InferInput("images", images.shape, "UINT8")
        one.set_data_from_numpy(images)
    else:
        one = module.InferInput("encoded", [len(images)], "BYTES")
        one.set_data_from_numpy(np.array(images, np.object_))
    return [one]


def answer(result: Any) -> dict[str, Any]:
    response = result.get_response()
    return {
        "outputs": {output.name: result.as_numpy(output.name) for output in response.outputs},
        "model": (response.model_name, response.model_version),
        "id": response.id,
        "parameters": {name: parameter.string_param for name, parameter in response.parameters.items()},
    }


def refused(call: Callable[[], object]) -> tuple[str, str]:
    """Status and message of a call that must fail."""
    from tritonclient.utils import InferenceServerException

    try:
        call()
    except InferenceServerException as error:
        return error.status(), error.message()
    raise AssertionError("the call was answered")


def sync_client(address: str, images: Any, files: list[bytes]) -> dict[str, Any]:
    from tritonclient import grpc

    with grpc.InferenceServerClient(address) as client:

        def infer(images: Any, name: str = "tiny", outputs: tuple[str, ...] = (), **options: Any) -> Any:
            wanted = [grpc.InferRequestedOutput(output) for output in outputs] or None
            return client.infer(name, inputs(grpc, images), outputs=wanted, **options)

        first = infer(images, request_id="mine", priority=1, timeout=60_000_000)
        version = answer(first)["model"][1]
        return {
            "live": client.is_server_live(),
            "ready": client.is_server_ready(),
            "model_ready": client.is_model_ready("tiny"),
            "version_ready": client.is_model_ready("tiny", version),
            "other_ready": client.is_model_ready("other"),
            "server": client.get_server_metadata(as_json=True),
            "model": client.get_model_metadata("tiny", as_json=True),
            "images": answer(first),
            "files": answer(infer(files)),
            "realness": answer(infer(images, outputs=("realness",))),
            "bulk": answer(infer(images, model_version=version, parameters={})),
            "compressed": answer(infer(images, compression_algorithm="gzip")),
            "unknown model": refused(lambda: infer(images, name="other")),
            "unknown output": refused(lambda: infer(images, outputs=("label",))),
            "sequence": refused(lambda: infer(images, sequence_id=5)),
            "wrong shape": refused(lambda: infer(images[:, :4])),
            "config": refused(lambda: client.get_model_config("tiny")),
            "stream": stream_refusal(client),
        }


def stream_refusal(client: Any) -> tuple[str, str]:
    """The server ends the stream before it has read anything, so nothing is sent."""
    answers: queue.Queue[Any] = queue.Queue()
    client.start_stream(lambda result, error: answers.put(error))
    error = answers.get(timeout=30)
    client.stop_stream()
    return error.status(), error.message()


def asyncio_client(address: str, images: Any, files: list[bytes]) -> dict[str, Any]:
    from tritonclient.grpc import aio

    async def ask() -> dict[str, Any]:
        async with aio.InferenceServerClient(address) as client:
            results = await asyncio.gather(
                *(client.infer("tiny", inputs(aio, images[i : i + 1]), request_id=str(i)) for i in range(len(images)))
            )
            return {
                "live": await client.is_server_live(),
                "ready": await client.is_server_ready(),
                "model_ready": await client.is_model_ready("tiny"),
                "model": await client.get_model_metadata("tiny", as_json=True),
                "images": [answer(result) for result in results],
                "files": answer(await client.infer("tiny", inputs(aio, files))),
            }

    return asyncio.run(ask())


def message_fields(names: list[str]) -> dict[str, dict[str, tuple[int, int, bool]]]:
    """Message name -> field name -> (number, type, repeated), as `tritonclient` has them; nested messages included."""
    from tritonclient.grpc import service_pb2

    fields: dict[str, dict[str, tuple[int, int, bool]]] = {}
    waiting = [service_pb2.DESCRIPTOR.message_types_by_name[name] for name in names]
    while waiting:
        message = waiting.pop()
        fields[message.full_name] = {
            field.name: (field.number, field.type, field.is_repeated) for field in message.fields
        }
        waiting += message.nested_types
    return fields
