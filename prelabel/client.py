"""The client of prelabel servers: arrays in, predictions out; deadlines, retries and balancing are its business.

    with PrelabelClient("127.0.0.1:50051") as client:
        model = client.model()
        for batch in client.predict_stream(batches):
            for prediction in batch.rows(model.classes):
                print(prediction.label, prediction.confidence)

`prelabel.client_aio` has the same for asyncio. Both carry out the steps of `prelabel.exchange`, which holds the logic.
"""

import os
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Self, TypeVar

import grpc

from prelabel.channel import TOKEN_VARIABLE, Metadata, Recipe, bearer, channel_to
from prelabel.duplex import Duplex
from prelabel.exchange import DEFAULT_RETRY_FOR_S, DEFAULT_TIMEOUT_S, Exchange
from prelabel.failures import failure_of
from prelabel.predictions import PredictionBatch, Priority
from prelabel.steps import END, Ask, Close, Finish, Give, Meet, Open, Pause, Receive, Send, Step, Steps, Take
from prelabel.tls import Tls
from prelabel.v1 import prelabel_pb2 as pb
from prelabel.v1.prelabel_pb2_grpc import PrelabelServiceStub
from prelabel.wire import MAX_MESSAGE_BYTES, PUSHBACK_KEY, Images, ModelInfo

__all__ = ["CHANNEL_OPTIONS", "MAX_MESSAGE_BYTES", "PUSHBACK_KEY", "Images", "ModelInfo", "PrelabelClient"]

CHANNEL_OPTIONS = (
    # gRPC's own retries lose parts of a stream whose server dies just as the call starts: the status may come without
    # waking the reader, or nothing at all. Without them (we have ours) 4,000 such deaths left no call silent; with them
    # one in about 150 did.
    ("grpc.enable_retries", 0),
    # gRPC would wait up to two minutes before it looks for a server again that went away.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
    # In truth how long making a connection may take: enough for a far or busy server, where gRPC would give it 20 s.
    ("grpc.min_reconnect_backoff_ms", 2000),
    # A peer that vanished without a word (power, network) is noticed.
    ("grpc.keepalive_time_ms", 60_000),
)
"""Options of every connection of a client, beside the sizes of messages."""


def recipes(
    addresses: Iterable[str], tls: Tls | None, token: str | None, token_over_plaintext: bool, max_message_bytes: int
) -> tuple[dict[str, Recipe], Metadata]:
    """Returns for each server's address how a channel is opened, and the metadata of every call.

    Raises:
        InputError: A file of `tls` cannot be used, or the token cannot be one or would leave this machine unencrypted.
    """
    token = os.environ.get(TOKEN_VARIABLE) if token is None else token
    sizes = tuple((f"grpc.max_{way}_message_length", max_message_bytes) for way in ("receive", "send"))
    channels, metadata = {}, Metadata()
    for address in addresses:
        channels[address] = channel_to(address, (*CHANNEL_OPTIONS, *sizes), tls)
        metadata = bearer(token, address, tls, token_over_plaintext)
    return channels, metadata


ResultT = TypeVar("ResultT")


class PrelabelClient:
    """Connections to one or more servers of one model; safe to use from several threads.

    Close it, or use it as a context manager. Every call has a deadline, and is tried again for up to `retry_for_s`
    where the servers are away or overloaded. Of several servers the least busy one that answers gets a call or a
    stream; one that fails is skipped for a while, and what it left unanswered goes to another.

    Args:
        address: `HOST:PORT` of the server; several with commas between, or as a sequence.
        tls: How the connections are encrypted; None: not at all.
        token: Bearer token, where the servers want one; None: that of the environment variable PRELABEL_TOKEN, if any.
        token_over_plaintext: Whether the token may go to another machine without TLS.
        max_message_bytes: Largest request that is sent and answer that is taken; the servers have their own limit.
        timeout_s: Longest wait for one answer.
        retry_for_s: For how long, since the first failure, a call is tried again; 0: each server at most once.
        model_version: Which of the models that the servers hold, by version or model_id; empty for the latest.
        sleep: Replaces `time.sleep` between tries.
        clock: Replaces `time.monotonic`.
        uniform: Replaces `random.random` for the jitter.
    """

    def __init__(
        self,
        address: str | Sequence[str] = "127.0.0.1:50051",
        *,
        tls: Tls | None = None,
        token: str | None = None,
        token_over_plaintext: bool = False,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        retry_for_s: float = DEFAULT_RETRY_FOR_S,
        model_version: str = "",
        sleep: Callable[[float], object] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        uniform: Callable[[], float] = random.random,
    ) -> None:
        self._exchange = Exchange(address, timeout_s, retry_for_s, clock, uniform, model_version, max_message_bytes)
        self.address = str(self._exchange.servers)
        self._sleep = sleep
        addresses = [server.address for server in self._exchange.servers.every()]
        opened, self._metadata = recipes(addresses, tls, token, token_over_plaintext, max_message_bytes)
        self._channels = {address: recipe.open() for address, recipe in opened.items()}
        self._stubs = {address: PrelabelServiceStub(channel) for address, channel in self._channels.items()}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connections and what is in flight on them."""
        self._exchange.closed = True
        for channel in self._channels.values():
            channel.close()

    def model(self) -> ModelInfo:
        """Asks what the servers' model is; servers that do not answer are left out.

        Raises:
            AccessError: The server wants a token, or another one, or its certificate is not trusted.
            ModelNotFoundError: A server does not hold the `model_version`.
            ServerUnavailableError: No server answers, or none holds a model.
            RemoteError: What answers is no prelabel server, or failed; or the servers hold different models.
        """
        return self._run(self._exchange.model())

    def predict(self, images: Images, priority: Priority = "interactive") -> PredictionBatch:
        """Classifies one batch of at most `ModelInfo.max_request_images` images, by default before bulk work.

        Returns:
            One row for each image; a file that cannot be decoded is an error of its row.

        Raises:
            InputError: The images have another shape or dtype than the model takes, or are too many; as
                ModelNotFoundError, the server does not hold the `model_version`.
            AccessError: As `model`.
            OverloadedError: The server's queue stayed full, or the caller over its rate limit, for `retry_for_s`.
            ServerUnavailableError: No server answered within `timeout_s`, or for `retry_for_s`.
            RemoteError: The server failed.
        """
        return self._run(self._exchange.predict(images, priority))

    def predict_stream(
        self, batches: Iterable[Images], window: int = 8, priority: Priority = "bulk"
    ) -> Iterator[PredictionBatch]:
        """Classifies many batches, `window` of them in flight, and yields the answers in the order of the batches.

        `batches` is read in the caller's thread, never more than `window` ahead of the answers. Where the server goes
        away or is overloaded in mid-stream, the unanswered batches are sent again, to another server where there is
        one: none is lost and none comes twice.

        Args:
            batches: See `predict`.
            window: Most batches that are sent and unanswered: 8 keep a server busy over a network.
            priority: Who waits: a person goes before a program that works through a pile.

        Raises:
            InputError: As `predict`; where the server finds it, after the answers to earlier batches.
            AccessError: As `model`.
            OverloadedError: As `predict`.
            ServerUnavailableError: As `predict`; a stream has the time anew after every answer.
            RemoteError: The server failed, or another model began to answer.
        """
        steps, line, source = self._exchange.stream(window, priority), self._line(), iter(batches)
        outcome: object = None
        try:
            while True:
                match step := steps.send(outcome):
                    case Give(batch):
                        outcome = None
                        yield batch
                    case Take():
                        outcome = next(source, END)
                    case _:
                        outcome = line.do(step)
        except StopIteration:
            return
        finally:
            line.close()
            steps.close()

    def _run(self, steps: Steps[ResultT]) -> ResultT:
        line = self._line()
        outcome: object = None
        try:
            while True:
                outcome = line.do(steps.send(outcome))
        except StopIteration as end:
            result: ResultT = end.value
            return result
        finally:
            steps.close()

    def _line(self) -> "_Line":
        return _Line(self._stubs, self._metadata, self._sleep)


class _Line:
    """Carries out the steps of one operation."""

    def __init__(
        self, stubs: Mapping[str, PrelabelServiceStub], metadata: Metadata, sleep: Callable[[float], object]
    ) -> None:
        self._stubs, self._metadata, self._sleep = stubs, metadata, sleep
        self._stream: Duplex[pb.PredictRequest, pb.PredictResponse] | None = None

    @property
    def stream(self) -> Duplex[pb.PredictRequest, pb.PredictResponse]:
        """The open stream."""
        assert self._stream is not None, "no stream is open"
        return self._stream

    def do(self, step: Step) -> object:
        """Carries out a step and returns its outcome."""
        match step:
            case Ask(address, method, request, timeout_s):
                try:
                    call = getattr(self._stubs[address], method)
                    return call(request, timeout=timeout_s, metadata=self._metadata)
                except grpc.RpcError as error:
                    return failure_of(error)
            case Open(address):
                self._stream = Duplex(partial(self._stubs[address].PredictStream, metadata=self._metadata))
            case Send(request):
                self.stream.send(request)
            case Finish():
                self.stream.end()
            case Meet(timeout_s):
                return self.stream.meet(timeout_s)
            case Receive(timeout_s):
                return self.stream.receive(timeout_s)
            case Close():
                self.close()
            case Pause(seconds):
                self._sleep(seconds)
            case _:
                raise AssertionError(f"{step} is the caller's business")
        return None

    def close(self) -> None:
        """Gives up the open stream, if there is one."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None
