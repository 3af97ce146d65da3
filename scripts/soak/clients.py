"""Clients of both protocols: well-behaved ones, impatient ones, and ones that send what they should not."""

import asyncio
import io
import itertools
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import grpc
import grpc.aio
import numpy as np
from PIL import Image

from prelabel.v1 import prelabel_pb2 as v1
from prelabel.v1.prelabel_pb2_grpc import PrelabelServiceStub
from prelabel.wire import MAX_MESSAGE_BYTES
from scripts.soak.model import MAX_MARK, NAME, SPEC, Marked
from scripts.soak.tally import Tally
from serving.inference_v2 import open_inference_pb2 as v2
from serving.inference_v2.open_inference_pb2_grpc import GRPCInferenceServiceStub

_PATIENCE_S = 20.0
"""An accepted request is answered within this; DEADLINE_EXCEEDED of it is a violation."""

_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.initial_reconnect_backoff_ms", 100),
    # A connection of its own for each client.
    ("grpc.use_local_subchannel_pool", 1),
)

_INVALID = frozenset({grpc.StatusCode.INVALID_ARGUMENT})
_LATE = frozenset({grpc.StatusCode.DEADLINE_EXCEEDED})
_TOO_LARGE = frozenset({grpc.StatusCode.RESOURCE_EXHAUSTED})
_PREDICT = "/prelabel.v1.PrelabelService/Predict"
_INFER = "/inference.GRPCInferenceService/ModelInfer"

_numbers = itertools.count()


def channel(address: str) -> grpc.aio.Channel:
    """Returns a new connection."""
    return grpc.aio.insecure_channel(address, options=_OPTIONS)


class Client:
    """One connection that does one thing after the other, at random."""

    def __init__(self, address: str, tally: Tally, seed: int) -> None:
        self._tally, self._random = tally, random.Random(seed)
        self._channel = channel(address)
        self._v1, self._v2 = PrelabelServiceStub(self._channel), GRPCInferenceServiceStub(self._channel)

    async def close(self) -> None:
        """Ends the connection."""
        await self._channel.close()

    async def act(self) -> None:
        """Does one of the things that clients do."""
        actions: Sequence[tuple[Callable[[], Awaitable[None]], int]] = (
            (self.predict, 30),
            (self.infer, 30),
            (self.files, 8),
            (self.stream, 10),
            (self.leave, 8),
            (self.impatient, 8),
            (self.not_a_number, 4),
            (self.raising, 1),
            (self.never_reads, 1),
            (self.malformed, 6),
            (self.random_bytes, 4),
        )
        (action,) = self._random.choices([one for one, _ in actions], [weight for _, weight in actions])
        await action()

    async def predict(self) -> None:
        """A batch of pixels in prelabel.v1."""
        await self._ask("predict", self._marked())

    async def not_a_number(self) -> None:
        """Images for which the model has no number: errors of their rows, and of no other."""
        images = self._marked()
        some = frozenset(i for i in range(len(images.marks)) if self._random.random() < 0.3)
        await self._ask("not a number", Marked(images.marks, some))

    async def raising(self) -> None:
        """A batch on which the engine fails."""
        await self._ask("raising", Marked(self._marked().marks, raises=True))

    async def impatient(self) -> None:
        """A deadline that may be too short."""
        await self._ask("impatient", self._marked(), self._random.uniform(0.0002, 0.03), _LATE)

    async def infer(self) -> None:
        """A batch of pixels in the Open Inference Protocol."""
        images = self._marked()
        pixels = images.pixels()
        request = v2.ModelInferRequest(model_name=NAME, raw_input_contents=[pixels.tobytes()])
        request.inputs.add(name="images", datatype="UINT8", shape=pixels.shape)
        await self._infer("infer", request, images)

    async def files(self) -> None:
        """Image files, in either protocol."""
        images = self._marked(most=8)
        contents = [_png(pixels) for pixels in images.pixels()]
        if self._random.random() < 0.5:
            request = v1.PredictRequest(encoded=v1.EncodedImages(images=contents))
            await self._ask("files", images, request=request)
        else:
            infer = v2.ModelInferRequest(model_name=NAME)
            infer.inputs.add(name="encoded", datatype="BYTES", shape=[len(contents)])
            infer.inputs[0].contents.bytes_contents.extend(contents)
            await self._infer("files", infer, images)

    async def leave(self) -> None:
        """A call that its caller may cancel."""
        images = self._marked()
        call = self._v1.Predict(_request(images), timeout=_PATIENCE_S)
        asyncio.get_running_loop().call_later(self._random.uniform(0, 0.02), call.cancel)
        try:
            _check(self._tally, "leave", images, await call)
        except asyncio.CancelledError:
            self._tally.outcomes["leave: left"] += 1
        except grpc.aio.AioRpcError as error:
            self._tally.refused("leave", error)

    async def stream(self) -> None:
        """A stream of batches: answers in order, one for each; sometimes its caller leaves in the middle."""
        batches = [self._marked(most=32) for _ in range(self._random.randint(1, 30))]
        leaves_after = self._random.randint(0, len(batches)) if self._random.random() < 0.3 else None
        call = self._v1.PredictStream(timeout=_PATIENCE_S)
        writing = asyncio.create_task(_write(call, batches))
        try:
            for i, images in enumerate(batches):
                if i == leaves_after:
                    self._tally.outcomes["stream: left"] += 1
                    return
                response = await call.read()
                if response is grpc.aio.EOF:
                    self._tally.violation(f"stream: ended after {i} of {len(batches)} answers")
                    return
                if response.request_id != str(images.marks[0]):
                    self._tally.violation(f"stream: answer {i} is to {response.request_id}")
                _check(self._tally, "stream", images, response)
            if await call.read() is not grpc.aio.EOF:
                self._tally.violation("stream: more answers than requests")
        except grpc.aio.AioRpcError as error:
            self._tally.refused("stream", error)
        finally:
            call.cancel()
            await asyncio.gather(writing, return_exceptions=True)

    async def never_reads(self) -> None:
        """A stream whose answers nobody reads until its deadline."""
        call = self._v1.PredictStream(timeout=self._random.uniform(0.1, 1.0))
        batches = [self._marked() for _ in range(200)]
        await asyncio.gather(_write(call, batches), return_exceptions=True)
        await call.code()
        self._tally.outcomes["never reads: left"] += 1

    async def malformed(self) -> None:
        """Requests that protobuf can read and the server must refuse."""
        images = self._marked(most=3)
        good = _request(images)
        infer = v2.ModelInferRequest(model_name=NAME, raw_input_contents=[b"\xff\xff\xff\xff" * 3])
        infer.inputs.add(name="encoded", datatype="BYTES", shape=[self._random.choice([-1, 1, 3, 2**62])])
        match self._random.randint(0, 4):
            case 0:
                good.tensor.shape[self._random.randint(0, 3)] += self._random.choice([1, 2**31])
            case 1:
                good.tensor.data = good.tensor.data[: self._random.randint(0, len(good.tensor.data) - 1)]
            case 2:
                good = v1.PredictRequest()
            case _:
                await self._refusal("malformed", self._v2.ModelInfer(infer, timeout=_PATIENCE_S), _INVALID)
                return
        await self._refusal("malformed", self._v1.Predict(good, timeout=_PATIENCE_S), _INVALID)

    async def random_bytes(self) -> None:
        """Bytes that are no message at all."""
        method = self._random.choice([_PREDICT, _INFER])
        call = self._channel.unary_unary(method)(self._random.randbytes(100), timeout=_PATIENCE_S)
        await self._refusal("random bytes", call, _INVALID)

    async def oversized(self, bomb: bool = False) -> None:
        """A message over the limit; or one that is small on the wire and over the limit when it is unpacked."""
        kind, compression = ("bomb", grpc.Compression.Gzip) if bomb else ("oversized", None)
        message = bytes(MAX_MESSAGE_BYTES + 1)
        call = self._channel.unary_unary(_PREDICT)(message, timeout=_PATIENCE_S, compression=compression)
        await self._refusal(kind, call, _TOO_LARGE)

    def _marked(self, most: int = 64) -> Marked:
        count = self._random.randint(1, most)
        return Marked(tuple(next(_numbers) % MAX_MARK for _ in range(count)))

    async def _ask(
        self,
        kind: str,
        images: Marked,
        timeout_s: float = _PATIENCE_S,
        allowed: frozenset[grpc.StatusCode] = frozenset(),
        request: v1.PredictRequest | None = None,
    ) -> None:
        try:
            response = await self._v1.Predict(request or _request(images), timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            self._tally.refused(kind, error, allowed)
        else:
            _check(self._tally, kind, images, response)

    async def _infer(self, kind: str, request: v2.ModelInferRequest, images: Marked) -> None:
        request.id = str(images.marks[0])
        try:
            response = await self._v2.ModelInfer(request, timeout=_PATIENCE_S)
        except grpc.aio.AioRpcError as error:
            self._tally.refused(kind, error)
            return
        if response.id != request.id:
            self._tally.violation(f"{kind}: the answer to {request.id} says that it is to {response.id}")
        probabilities, realness = (np.frombuffer(raw, "<f4") for raw in response.raw_output_contents)
        self._tally.answered(kind, images, response.model_version, realness, probabilities.reshape(-1, 2), set())

    async def _refusal(self, kind: str, call: Any, allowed: frozenset[grpc.StatusCode]) -> None:
        try:
            await call
        except grpc.aio.AioRpcError as error:
            self._tally.refused(kind, error, allowed)
        else:
            self._tally.violation(f"{kind}: was answered")


async def _write(call: Any, batches: list[Marked]) -> None:
    for images in batches:
        await call.write(_request(images))
    await call.done_writing()


def _request(images: Marked) -> v1.PredictRequest:
    pixels = images.pixels()
    tensor = v1.ImageTensor(shape=pixels.shape, dtype=v1.DATA_TYPE_UINT8, data=pixels.tobytes())
    return v1.PredictRequest(request_id=str(images.marks[0]), tensor=tensor)


def _check(tally: Tally, kind: str, images: Marked, response: v1.PredictResponse) -> None:
    realness = np.array(response.realness, np.float32)
    probabilities = np.array(response.probabilities, np.float32).reshape(-1, 2)
    failed = {error.index for error in response.errors}
    tally.answered(kind, images, response.model_id, realness, probabilities, failed)


def _png(pixels: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels.reshape(SPEC.height, SPEC.width)).save(file, "PNG")
    return file.getvalue()
