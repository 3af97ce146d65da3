"""The asyncio client of prelabel servers: `prelabel.client` with `await`.

Both carry out the steps of `prelabel.exchange`, which holds the logic.

    async with AsyncPrelabelClient("127.0.0.1:50051") as client:
        model = await client.model()
        async for batch in client.predict_stream(batches):
            for prediction in batch.rows(model.classes):
                print(prediction.label, prediction.confidence)
"""

import asyncio
import random
import time
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

import grpc.aio

from prelabel.channel import Metadata
from prelabel.client import recipes
from prelabel.duplex_aio import AsyncDuplex, outcome_of
from prelabel.exchange import DEFAULT_RETRY_FOR_S, DEFAULT_TIMEOUT_S, Exchange
from prelabel.predictions import PredictionBatch, Priority
from prelabel.steps import END, Ask, Close, Finish, Give, Meet, Open, Pause, Receive, Send, Step, Steps, Take
from prelabel.tls import Tls
from prelabel.v1 import prelabel_pb2 as pb
from prelabel.v1.prelabel_pb2_grpc import PrelabelServiceStub
from prelabel.wire import MAX_MESSAGE_BYTES, Images, ModelInfo

if TYPE_CHECKING:
    # The generated class is the same for both; only its stubs tell them apart.
    from prelabel.v1.prelabel_pb2_grpc import PrelabelServiceAsyncStub

ResultT = TypeVar("ResultT")


class AsyncPrelabelClient:
    """As `prelabel.client.PrelabelClient`, for the tasks of one event loop.

    Args:
        address: `HOST:PORT` of the server; several with commas between, or as a sequence.
        tls: How the connections are encrypted; None: not at all.
        token: Bearer token, where the servers want one; None: that of the environment variable PRELABEL_TOKEN, if any.
        token_over_plaintext: Whether the token may go to another machine without TLS.
        max_message_bytes: Largest request that is sent and answer that is taken; the servers have their own limit.
        timeout_s: Longest wait for one answer.
        retry_for_s: For how long, since the first failure, a call is tried again; 0: each server at most once.
        model_version: Which of the models that the servers hold, by version or model_id; empty for the latest.
        sleep: Replaces `asyncio.sleep` between tries.
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
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
        uniform: Callable[[], float] = random.random,
    ) -> None:
        self._exchange = Exchange(address, timeout_s, retry_for_s, clock, uniform, model_version, max_message_bytes)
        self.address = str(self._exchange.servers)
        self._sleep = sleep
        addresses = [server.address for server in self._exchange.servers.every()]
        self._recipes, self._metadata = recipes(addresses, tls, token, token_over_plaintext, max_message_bytes)
        self._channels: dict[str, grpc.aio.Channel] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends the connections and what is in flight on them."""
        self._exchange.closed = True
        for channel in self._channels.values():
            await channel.close()

    async def model(self) -> ModelInfo:
        """As `PrelabelClient.model`."""
        return await self._run(self._exchange.model())

    async def predict(self, images: Images, priority: Priority = "interactive") -> PredictionBatch:
        """As `PrelabelClient.predict`."""
        return await self._run(self._exchange.predict(images, priority))

    async def predict_stream(
        self, batches: Iterable[Images] | AsyncIterable[Images], window: int = 8, priority: Priority = "bulk"
    ) -> AsyncGenerator[PredictionBatch, None]:
        """As `PrelabelClient.predict_stream`; `batches` may be asynchronous.

        It is read up to `window` ahead before an answer is waited for: batches that depend on earlier answers need
        `window=1`. Leave the loop early only within `contextlib.aclosing`, so that the stream ends there and then.
        """
        steps, line = self._exchange.stream(window, priority), self._line()
        source = aiter(batches) if isinstance(batches, AsyncIterable) else _each(batches)
        outcome: object = None
        try:
            while True:
                match step := steps.send(outcome):
                    case Give(batch):
                        outcome = None
                        yield batch
                    case Take():
                        outcome = await anext(source, END)
                    case _:
                        outcome = await line.do(step)
        except StopIteration:
            return
        finally:
            line.close()
            steps.close()

    async def _run(self, steps: Steps[ResultT]) -> ResultT:
        line = self._line()
        outcome: object = None
        try:
            while True:
                outcome = await line.do(steps.send(outcome))
        except StopIteration as end:
            result: ResultT = end.value
            return result
        finally:
            steps.close()

    def _line(self) -> "_Line":
        return _Line(self._stub, self._metadata, self._sleep)

    def _stub(self, address: str) -> "PrelabelServiceAsyncStub":
        # Made when it is needed: a channel belongs to the running event loop.
        if address not in self._channels:
            self._channels[address] = self._recipes[address].open_aio()
        return PrelabelServiceStub(self._channels[address])


class _Line:
    """Carries out the steps of one operation."""

    def __init__(
        self,
        stub: Callable[[str], "PrelabelServiceAsyncStub"],
        metadata: Metadata,
        sleep: Callable[[float], Awaitable[object]],
    ) -> None:
        self._stub, self._metadata, self._sleep = stub, metadata, sleep
        self._stream: AsyncDuplex[pb.PredictRequest, pb.PredictResponse] | None = None

    @property
    def stream(self) -> AsyncDuplex[pb.PredictRequest, pb.PredictResponse]:
        """The open stream."""
        assert self._stream is not None, "no stream is open"
        return self._stream

    async def do(self, step: Step) -> object:
        """Carries out a step and returns its outcome."""
        match step:
            case Ask(address, method, request, timeout_s):
                call = getattr(self._stub(address), method)(request, timeout=timeout_s, metadata=self._metadata)
                return await outcome_of(call, call)
            case Open(address):
                self._stream = AsyncDuplex(partial(self._stub(address).PredictStream, metadata=self._metadata))
            case Send(request):
                self.stream.send(request)
            case Finish():
                self.stream.end()
            case Meet(timeout_s):
                return await self.stream.meet(timeout_s)
            case Receive(timeout_s):
                return await self.stream.receive(timeout_s)
            case Close():
                self.close()
            case Pause(seconds):
                await self._sleep(seconds)
            case _:
                raise AssertionError(f"{step} is the caller's business")
        return None

    def close(self) -> None:
        """Gives up the open stream, if there is one."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None


async def _each(batches: Iterable[Images]) -> AsyncIterator[Images]:
    for batch in batches:
        yield batch
