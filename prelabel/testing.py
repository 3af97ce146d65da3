"""A prelabel server without a model, for the tests of programs that use one of the clients.

    def test_my_program():
        with FakeServer(classes=("cat", "dog"), image=ImageSpec(32, 32, 3)) as server:
            server.fail_next(2, grpc.StatusCode.UNAVAILABLE)  # the client's retries are under test too
            my_program(server.address)
            assert server.images == 100

It is a real gRPC server on a free loopback port, in threads of this process, with the real API.
"""

import math
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

import grpc
import numpy as np

from prelabel.errors import ImageError
from prelabel.images import ImageSpec, Pixels, decode_image
from prelabel.predictions import PredictionBatch, with_failures
from prelabel.v1 import prelabel_pb2 as pb
from prelabel.v1.prelabel_pb2_grpc import PrelabelServiceServicer, add_PrelabelServiceServicer_to_server
from prelabel.wire import MAX_MESSAGE_BYTES, predict_response


class FakeServer(PrelabelServiceServicer):
    """Answers from the pixels alone, so that every answer can be foretold with `expected`.

    The mean of an image's pixels decides: class `mean * K // 256` gets probability 0.75, the others share the rest, and
    realness is `mean / 255`. Broken image files are errors of their items, as with the real server.

    Args:
        classes: At least two class names.
        image: What the model claims to take.
        model_id: Identity in every answer; the attribute may be set while the server runs.
        max_request_images: Larger requests are INVALID_ARGUMENT.
        model_version: Requests that name another version, and not `model_id` either, are NOT_FOUND.
    """

    def __init__(
        self,
        classes: Sequence[str] = ("cat", "dog"),
        image: ImageSpec | None = None,
        model_id: str = "fake000000000000",
        max_request_images: int = 4096,
        model_version: str = "1",
    ) -> None:
        self.classes, self.image = tuple(classes), image or ImageSpec(28, 28, 1)
        self.model_id, self.max_request_images = model_id, max_request_images
        self.model_version = model_version
        self.calls = 0
        """Calls that arrived; a stream is one call."""
        self.batches = 0
        """Batches that were answered."""
        self.images = 0
        """Images that were answered."""
        self._port = 0
        self._server: grpc.Server | None = None
        self._lock = threading.Lock()
        self._failures: deque[tuple[grpc.StatusCode, int]] = deque()
        self._released = threading.Event()
        self._released.set()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def address(self) -> str:
        """`HOST:PORT`; stays the same when the server is stopped and started again."""
        return f"127.0.0.1:{self._port}"

    def start(self) -> None:
        """Listens; the first time on a free port, later on the same one."""
        options = (
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        )
        self._server = grpc.server(ThreadPoolExecutor(16, thread_name_prefix="fake-server"), options=options)
        add_PrelabelServiceServicer_to_server(self, self._server)
        self._port = self._server.add_insecure_port(self.address)
        self._server.start()

    def stop(self) -> None:
        """Dies: calls in flight break off. `start` brings it back."""
        self.release()
        if self._server is not None:
            self._server.stop(grace=None).wait()
            self._server = None

    def fail_next(self, calls: int, code: grpc.StatusCode, after_answers: int = 0) -> None:
        """Lets the next `calls` calls fail with a status; streams among them after so many answers."""
        with self._lock:
            self._failures.extend([(code, after_answers)] * calls)

    def hold(self) -> None:
        """Answers no batch until `release` or `stop`."""
        self._released.clear()

    def release(self) -> None:
        """Ends `hold`."""
        self._released.set()

    def expected(self, images: Pixels) -> PredictionBatch:
        """Returns the server's answer to uint8 [B, H, W, C]."""
        count, classes = len(images), len(self.classes)
        mean = images.reshape(count, -1).mean(axis=1)
        probabilities = np.full((count, classes), 0.25 / (classes - 1), np.float32)
        probabilities[np.arange(count), (mean * classes // 256).astype(np.int64)] = 0.75
        return PredictionBatch(probabilities, (mean / 255).astype(np.float32), self.model_id)

    def GetModel(self, request: pb.GetModelRequest, context: Any) -> pb.GetModelResponse:  # noqa: N802
        """Describes the pretended model."""
        self._fail_if_told(self._count_call(), context)
        self._check_version(request.model_version, context)
        height, width, channels = self.image.shape
        return pb.GetModelResponse(
            model_id=self.model_id,
            name="fake",
            classes=self.classes,
            input=pb.ImageSpec(height=height, width=width, channels=channels, resize_rule=self.image.resize_rule),
            execution_provider="FakeServer",
            max_request_images=self.max_request_images,
            model_version=self.model_version,
        )

    def Predict(self, request: pb.PredictRequest, context: Any) -> pb.PredictResponse:  # noqa: N802
        """Answers one batch."""
        self._fail_if_told(self._count_call(), context)
        return self._answer(request, context)

    def PredictStream(  # noqa: N802
        self, request_iterator: Iterator[pb.PredictRequest], context: Any
    ) -> Iterator[pb.PredictResponse]:
        """Answers batch after batch."""
        failure = self._count_call()
        context.send_initial_metadata(())
        for answers, request in enumerate(request_iterator):
            if failure is not None and answers >= failure[1]:
                self._fail_if_told(failure, context)
            yield self._answer(request, context)

    def _count_call(self) -> tuple[grpc.StatusCode, int] | None:
        with self._lock:
            self.calls += 1
            return self._failures.popleft() if self._failures else None

    def _fail_if_told(self, failure: tuple[grpc.StatusCode, int] | None, context: Any) -> None:
        if failure is not None:
            context.abort(failure[0], "told to fail by FakeServer.fail_next")

    def _check_version(self, wanted: str, context: Any) -> None:
        if wanted not in ("", self.model_version, self.model_id):
            context.abort(grpc.StatusCode.NOT_FOUND, f"no model {wanted!r}: {self.model_version} is served")

    def _answer(self, request: pb.PredictRequest, context: Any) -> pb.PredictResponse:
        self._released.wait()
        self._check_version(request.model_version, context)
        if request.WhichOneof("images") == "encoded":
            images, errors = self._decode(list(request.encoded.images))
        else:
            images, errors = self._tensor(request.tensor, context), {}
        total = len(images) + len(errors)
        if not 1 <= total <= self.max_request_images:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"{total} images: 1 to {self.max_request_images} wanted")
        batch = with_failures(self.expected(images), errors, total)
        with self._lock:
            self.batches += 1
            self.images += total
        return predict_response(request, batch)

    def _tensor(self, tensor: pb.ImageTensor, context: Any) -> Pixels:
        shape = tuple(tensor.shape)
        fits = shape[1:] == self.image.shape and len(tensor.data) == math.prod(shape)
        if not fits or tensor.dtype != pb.DATA_TYPE_UINT8:
            context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"tensor of shape {list(shape)}, dtype {tensor.dtype}, {len(tensor.data)} bytes: uint8 "
                f"[B, {', '.join(map(str, self.image.shape))}] wanted",
            )
        return np.frombuffer(tensor.data, np.uint8).reshape(shape)

    def _decode(self, files: Sequence[bytes]) -> tuple[Pixels, dict[int, str]]:
        good: list[Pixels] = []
        errors: dict[int, str] = {}
        for i, data in enumerate(files):
            try:
                good.append(decode_image(data, self.image))
            except ImageError as error:
                errors[i] = str(error)
        return np.stack(good) if good else np.empty((0, *self.image.shape), np.uint8), errors
