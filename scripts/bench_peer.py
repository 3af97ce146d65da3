"""MLServer with ONNX Runtime, for `make bench-serving`: runs under the Python of an environment that has both.

`PYTHON scripts/bench_peer.py MODEL.onnx NAME` needs nothing of this project: mlserver, onnxruntime and numpy. Prints
one line of JSON: the gRPC port and the versions. The runtime is what MLServer's documentation leads to: its codec for
arrays, and the session as it comes, which uses all cores for each inference, like the naive server's. MLServer runs it
in its own process: with one or two worker processes it was slower here, for single images and for bulk.
"""

import asyncio
import json
import logging
import os
import socket
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import onnxruntime
from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import NumpyCodec
from mlserver.settings import ModelParameters
from mlserver.types import InferenceRequest, InferenceResponse

MAX_MESSAGE_BYTES = 64 << 20


class OnnxModel(MLModel):
    """Runs the session for each request."""

    async def load(self) -> bool:
        """Loads the file that `uri` names."""
        assert self.settings.parameters is not None
        self._session = onnxruntime.InferenceSession(self.settings.parameters.uri, providers=["CPUExecutionProvider"])
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answers one request with every output of the graph."""
        images = NumpyCodec.decode_input(payload.inputs[0])
        names = [output.name for output in self._session.get_outputs()]
        answers = self._session.run(names, {self._session.get_inputs()[0].name: images})
        outputs = [NumpyCodec.encode_output(name, answer) for name, answer in zip(names, answers, strict=True)]
        return InferenceResponse(model_name=self.name, outputs=outputs)


def free_port() -> int:
    """Returns a port of this machine that nobody uses now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


async def main(model: str, name: str) -> None:
    """Serves until killed."""
    port = free_port()
    settings = Settings(
        debug=False,
        host="127.0.0.1",
        http_port=free_port(),
        grpc_port=port,
        grpc_max_message_length=MAX_MESSAGE_BYTES,
        metrics_endpoint=None,
        parallel_workers=0,
        model_repository_root="/nowhere",
    )
    server = MLServer(settings)
    parameters = ModelParameters(uri=model)
    serving = asyncio.create_task(
        server.start([ModelSettings(name=name, implementation=OnnxModel, parameters=parameters)])
    )
    # Ready when the model is: the port opens before.
    while not serving.done() and not await loaded(server, name):
        await asyncio.sleep(0.05)
    versions = {package: version(package) for package in ("mlserver", "onnxruntime", "grpcio")}
    print(json.dumps({"port": port, "versions": versions}), flush=True)
    await serving


async def loaded(server: MLServer, name: str) -> bool:
    """Says whether the model can be asked."""
    try:
        return bool((await server._model_registry.get_model(name)).ready)
    except Exception:  # MLServer raises what it likes for a model that is on its way
        return False


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    model_file, model_name = str(Path(sys.argv[1]).resolve()), sys.argv[2]
    # MLServer writes folders into the working directory.
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        asyncio.run(main(model_file, model_name))
