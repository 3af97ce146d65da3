"""The client of a prelabel server: arrays in, predictions out; deadlines, retries and streams are its business.

    with PrelabelClient("127.0.0.1:50051") as client:
        model = client.model()
        for batch in client.predict_stream(batches):
            for prediction in batch.rows(model.classes):
                print(prediction.label, prediction.confidence)

Messages of gRPC and protobuf do not leave this file.
"""

import os
import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Literal, Self, TypeVar, cast

import grpc
import numpy as np

from prelabel.channel import TOKEN_VARIABLE, bearer, open_channel
from prelabel.duplex import Duplex, StalledError
from prelabel.errors import (
    AccessError,
    InputError,
    OverloadedError,
    PrelabelError,
    RemoteError,
    ServerUnavailableError,
)
from prelabel.images import ImageSpec, Pixels
from prelabel.predictions import PredictionBatch, Priority
from prelabel.retry import Backoff
from prelabel.tls import Tls
from prelabel.v1 import prelabel_pb2 as pb
from prelabel.v1.prelabel_pb2_grpc import PrelabelServiceStub

MAX_MESSAGE_BYTES = 64 << 20
"""Largest request and response, on both sides: a few hundred large images; gRPC's own limit of 4 MiB is too small."""

PUSHBACK_KEY = "grpc-retry-pushback-ms"
"""Trailing metadata of RESOURCE_EXHAUSTED: after so many milliseconds there is room. gRPC's own key: clients
with a retry policy obey it, too."""

Images = Pixels | Sequence[bytes]
"""uint8 [B, H, W, C], 0..255, of the model's H, W and C; or B image files (PNG, JPEG, ...) of any size."""

_ERRORS: dict[grpc.StatusCode, type[PrelabelError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InputError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: OverloadedError,
    grpc.StatusCode.UNAVAILABLE: ServerUnavailableError,
    grpc.StatusCode.CANCELLED: ServerUnavailableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: ServerUnavailableError,
    grpc.StatusCode.UNAUTHENTICATED: AccessError,
    grpc.StatusCode.PERMISSION_DENIED: AccessError,
}
"""What a status means; everything else is a `RemoteError`."""

_PRIORITIES: dict[Priority, "pb.Priority.ValueType"] = {
    "interactive": pb.PRIORITY_INTERACTIVE,
    "bulk": pb.PRIORITY_BULK,
}

_RETRIED = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.CANCELLED})
"""Status of requests that the server did not carry out, and may carry out later; a dying server cancels its calls."""

_UNTRUSTED = ("CERTIFICATE_VERIFY_FAILED", "Hostname Verification Check failed")
"""What gRPC says of a server whose certificate does not suit; it is UNAVAILABLE, but no later try is better."""

_TOO_LARGE = "message larger than max"
"""What gRPC says of a message over a limit; it is RESOURCE_EXHAUSTED, but no later try is better."""

_OPTIONS = (
    # gRPC would wait up to two minutes before it looks for a server again that went away.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
    # A peer that vanished without a word (power, network) is noticed.
    ("grpc.keepalive_time_ms", 60_000),
)

RequestT = TypeVar("RequestT")
ResponseT = TypeVar("ResponseT")


@dataclass(frozen=True)
class ModelInfo:
    """The model that a server holds."""

    model_id: str
    """Identity of the model, derived from its bundle's content."""
    name: str
    """Name given at training time."""
    classes: tuple[str, ...]
    """Class names; the position is the label index."""
    input: ImageSpec
    """The tensor that the model takes for one image."""
    execution_provider: str
    """What runs the model, for example `CPUExecutionProvider`."""
    max_request_images: int
    """Most images that one request may hold."""


class PrelabelClient:
    """A connection to one server; safe to use from several threads. Close it, or use it as a context manager.

    Every call has a deadline, and is tried again for up to `retry_for_s` where the server is away or overloaded.

    Args:
        address: `HOST:PORT` of the server.
        tls: How the connection is encrypted; None: not at all.
        token: Bearer token, where the server wants one; None: that of the environment variable PRELABEL_TOKEN, if any.
        token_over_plaintext: Whether the token may go to another machine without TLS.
        max_message_bytes: Largest request that is sent and answer that is taken; the server has its own limit.
        timeout_s: Longest wait for one answer.
        retry_for_s: For how long, since the first failure, a call is tried again; 0: never.
        sleep: Replaces `time.sleep` between tries.
        clock: Replaces `time.monotonic`.
        uniform: Replaces `random.random` for the jitter.
    """

    def __init__(
        self,
        address: str = "127.0.0.1:50051",
        *,
        tls: Tls | None = None,
        token: str | None = None,
        token_over_plaintext: bool = False,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        timeout_s: float = 60.0,
        retry_for_s: float = 60.0,
        sleep: Callable[[float], object] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        uniform: Callable[[], float] = random.random,
    ) -> None:
        host, _, port = address.rpartition(":")
        if not host or not (port.isascii() and port.isdigit() and 0 < int(port) <= 65535):
            raise InputError(f"server address {address!r} is not HOST:PORT, for example 127.0.0.1:50051")
        self.address = address
        self._timeout_s = timeout_s
        self._new_backoff = partial(Backoff, retry_for_s, sleep, clock, uniform)
        self._closed = False
        token = os.environ.get(TOKEN_VARIABLE) if token is None else token
        self._metadata = bearer(token, address, tls, token_over_plaintext)
        self._max_message_bytes = max_message_bytes
        sizes = ("grpc.max_receive_message_length", "grpc.max_send_message_length")
        self._channel = open_channel(address, (*_OPTIONS, *((name, max_message_bytes) for name in sizes)), tls)
        self._stub = PrelabelServiceStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection and what is in flight on it."""
        self._closed = True
        self._channel.close()

    def model(self) -> ModelInfo:
        """Asks what the server's model is.

        Raises:
            AccessError: The server wants a token, or another one, or its certificate is not trusted.
            ServerUnavailableError: No server answers, or it holds no model.
            RemoteError: What answers is no prelabel server, or failed.
        """
        response = self._call(self._stub.GetModel, pb.GetModelRequest())
        spec = response.input
        return ModelInfo(
            model_id=response.model_id,
            name=response.name,
            classes=tuple(response.classes),
            input=ImageSpec(spec.height, spec.width, cast(Literal[1, 3], spec.channels), spec.resize_rule),
            execution_provider=response.execution_provider,
            max_request_images=response.max_request_images,
        )

    def predict(self, images: Images, priority: Priority = "interactive") -> PredictionBatch:
        """Classifies one batch of at most `ModelInfo.max_request_images` images, by default before bulk work.

        Returns:
            One row for each image; a file that cannot be decoded is an error of its row.

        Raises:
            InputError: The images have another shape or dtype than the model takes, or are too many.
            AccessError: As `model`.
            OverloadedError: The server's queue stayed full, or the caller over its rate limit, for `retry_for_s`.
            ServerUnavailableError: No server answered within `timeout_s`, or for `retry_for_s`.
            RemoteError: The server failed.
        """
        return _batch(self._call(self._stub.Predict, self._request(images, priority)), len(images))

    def predict_stream(
        self, batches: Iterable[Images], window: int = 8, priority: Priority = "bulk"
    ) -> Iterator[PredictionBatch]:
        """Classifies many batches, `window` of them in flight, and yields the answers in the order of the batches.

        `batches` is read in the caller's thread, never more than `window` ahead of the answers. Where the server goes
        away or is overloaded in mid-stream, the unanswered batches are sent again: none is lost and none comes twice.

        Args:
            batches: See `predict`.
            window: Most batches that are sent and unanswered: 8 keep a server busy over a network.
            priority: Who waits: a person goes before a program that works through a pile.

        Raises:
            InputError: As `predict`; where the server finds it, after the answers to earlier batches.
            AccessError: As `model`.
            OverloadedError: As `predict`.
            ServerUnavailableError: As `predict`; a stream has the time anew after every answer.
            RemoteError: The server failed, or began to answer with another model.
        """
        if window < 1:
            raise InputError(f"window is {window}: at least 1 batch must be in flight")
        source = ((self._request(images, priority, str(number)), len(images)) for number, images in enumerate(batches))
        unanswered: deque[tuple[pb.PredictRequest, int]] = deque()
        exhausted = False
        model_id: str | None = None
        backoff = self._new_backoff()
        while unanswered or not exhausted:
            stream: Duplex[pb.PredictRequest, pb.PredictResponse] = Duplex(
                partial(self._stub.PredictStream, metadata=self._metadata), self._timeout_s
            )
            try:
                for request, _ in unanswered:
                    stream.send(request)
                if exhausted:
                    stream.end()
                while unanswered or not exhausted:
                    while not exhausted and len(unanswered) < window:
                        if (item := next(source, None)) is None:
                            exhausted = True
                            stream.end()
                        else:
                            unanswered.append(item)
                            stream.send(item[0])
                    if not unanswered:
                        break
                    response = stream.receive()
                    request, count = unanswered[0]
                    if response is None or response.request_id != request.request_id:
                        raise RemoteError(f"{self.address} left out the answer to batch {request.request_id}")
                    batch = _batch(response, count)
                    if model_id not in (None, batch.model_id):
                        raise RemoteError(
                            f"{self.address} changed its model from {model_id} to {batch.model_id} in mid-stream at "
                            f"batch {request.request_id}: start again to have one model's answers"
                        )
                    model_id = batch.model_id
                    unanswered.popleft()
                    backoff.succeeded()
                    yield batch
            except grpc.RpcError as error:
                self._recover(error, backoff)
            except StalledError as error:
                # A server that died just as the call started can leave it silent for ever; a new call tells.
                if not backoff.wait():
                    raise ServerUnavailableError(self._stalled_message()) from error
            finally:
                stream.close()

    def _request(self, images: Images, priority: Priority, request_id: str = "") -> pb.PredictRequest:
        if len(images) == 0:
            raise InputError("a batch of no images was given: at least 1 wanted")
        if isinstance(images, np.ndarray):
            if images.dtype != np.uint8 or images.ndim != 4:
                raise InputError(f"images are {images.dtype} {list(images.shape)}: uint8 [B, H, W, C] (0..255) wanted")
            tensor = pb.ImageTensor(shape=images.shape, dtype=pb.DATA_TYPE_UINT8, data=images.tobytes())
            request = pb.PredictRequest(request_id=request_id, tensor=tensor, priority=_PRIORITIES[priority])
        else:
            encoded = pb.EncodedImages(images=images)
            request = pb.PredictRequest(request_id=request_id, encoded=encoded, priority=_PRIORITIES[priority])
        if (size_bytes := request.ByteSize()) > self._max_message_bytes:
            raise InputError(
                f"{len(images)} images make a request of {size_bytes} bytes, over the limit of "
                f"{self._max_message_bytes}: give smaller batches"
            )
        return request

    def _call(self, rpc: Callable[..., ResponseT], request: RequestT) -> ResponseT:
        backoff = self._new_backoff()
        while True:
            try:
                return rpc(request, timeout=self._timeout_s, metadata=self._metadata)
            except grpc.RpcError as error:
                self._recover(error, backoff)

    def _recover(self, error: grpc.RpcError, backoff: Backoff) -> None:
        """Sleeps and returns if the call is worth another try; else raises what the status means."""
        code: grpc.StatusCode = error.code()
        details = " ".join(str(error.details()).split())[:500]
        if code is grpc.StatusCode.RESOURCE_EXHAUSTED and _TOO_LARGE in details:
            raise InputError(
                f"a message is over the limit of the server at {self.address}, or of this client: give smaller batches "
                f"({details})"
            ) from error
        if code is grpc.StatusCode.UNAVAILABLE and any(text in details for text in _UNTRUSTED):
            raise AccessError(
                f"the certificate of the server at {self.address} is not trusted: is it signed by --tls-ca, not "
                f"expired, and made for this host (else --tls-server-name)? ({details})"
            ) from error
        if code in _RETRIED and not self._closed and backoff.wait(_pushback_s(error)):
            return
        kind = _ERRORS.get(code, RemoteError)
        tried = f"tried {backoff.failures} times in {backoff.elapsed_s:.0f} s"
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            message = self._stalled_message()
        elif kind is InputError:
            message = details
        elif kind is OverloadedError:
            message = f"the server at {self.address} is overloaded ({tried}): {details}"
        elif kind is AccessError:
            message = f"the server at {self.address} refuses this caller: {code.name}: {details}"
        elif kind is ServerUnavailableError:
            message = (
                f"no prelabel server answers at {self.address} ({tried}): start one with `make serve`, or does it want "
                f"TLS (--tls) or a client's certificate? ({details})"
            )
        else:
            message = f"the server at {self.address} failed: {code.name}: {details}"
        raise kind(message) from error

    def _stalled_message(self) -> str:
        return (
            f"the server at {self.address} did not answer within {self._timeout_s:g} s: is it overloaded, or not a "
            "prelabel server? Start one with `make serve`, or allow more time"
        )


def _pushback_s(error: grpc.RpcError) -> float:
    """Returns how long the server asks to stay away, in seconds; 0 where it says nothing that can be read."""
    metadata: Iterable[tuple[str, str | bytes]] = cast(grpc.Call, error).trailing_metadata() or ()
    values = [value for key, value in metadata if key == PUSHBACK_KEY]
    return int(values[0]) / 1000 if values and str(values[0]).isdecimal() else 0.0


def _batch(response: pb.PredictResponse, count: int) -> PredictionBatch:
    realness = np.array(response.realness, np.float32)
    probabilities = np.array(response.probabilities, np.float32)
    if len(realness) != count or len(probabilities) % count:
        raise RemoteError(
            f"the server answered {len(realness)} rows and {len(probabilities)} probabilities for {count} images"
        )
    errors = {error.index: error.message for error in response.errors}
    return PredictionBatch(probabilities.reshape(count, -1), realness, response.model_id, errors)
