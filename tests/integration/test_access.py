"""Tokens, roles and rates on a real socket, around services of the test's own."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from prelabel.client import PUSHBACK_KEY
from prelabel.v1 import prelabel_pb2 as pb
from serving.access import Access
from serving.errors import ErrorLayer
from serving.health import Health
from serving.rates import Rate, RateLimiter
from serving.reflection import Reflection
from serving.requests import Requests
from serving.routes import Routes
from serving.tokens import watch_tokens
from support.guarded import OPS, USER

WORK, ADMIN = "test.Work", "test.Admin"
NO_LIMIT = Rate(float("inf"), 1)
UNAUTHENTICATED, DENIED = grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Services:
    """Echoes; a request is as many images as it has bytes."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []
        self.address = ""

    async def unary(self, request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        self.seen.append(request)
        return request

    async def stream(self, requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext) -> AsyncIterator[bytes]:
        async for request in requests:
            self.seen.append(request)
            yield request


@asynccontextmanager
async def serving(
    token_file: Path | None, rate: Rate = NO_LIMIT, clock: Clock | None = None
) -> AsyncIterator[tuple[Services, grpc.aio.Channel]]:
    services, tokens = Services(), watch_tokens(token_file, {})
    limiter = RateLimiter(rate, clock or Clock())
    access = Access(tokens, {ADMIN}, {WORK: len}, limiter)
    routes = Routes([access.limit, ErrorLayer([WORK, ADMIN], Requests())], access.guard)
    unary = grpc.unary_unary_rpc_method_handler(services.unary)
    parsed = grpc.unary_unary_rpc_method_handler(services.unary, pb.PredictRequest.FromString)
    handlers = {"Unary": unary, "Parsed": parsed, "Stream": grpc.stream_stream_rpc_method_handler(services.stream)}
    routes.add_registered_method_handlers(WORK, handlers)
    routes.add_registered_method_handlers(ADMIN, {"Unary": unary})
    health_pb2_grpc.add_HealthServicer_to_server(Health([WORK], serving=True), routes)
    Reflection((WORK, health.SERVICE_NAME)).add_to(routes)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((routes,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    services.address = f"127.0.0.1:{port}"
    async with grpc.aio.insecure_channel(services.address) as channel:
        yield services, channel
    await server.stop(None)


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)


def unary(channel: grpc.aio.Channel, service: str, metadata: tuple[tuple[str, str], ...] = ()) -> object:
    return channel.unary_unary(f"/{service}/Unary")(b"x", metadata=metadata, timeout=30)


@pytest.mark.parametrize(
    "metadata",
    [
        (),
        bearer("the-token-of-nobody"),
        bearer(USER[:-1]),
        bearer("x"),
        (("authorization", USER),),
        (("authorization", f"Basic {USER}"),),
        bearer(USER) + bearer(OPS),
        (("x-authorization", f"Bearer {USER}"),),
    ],
    ids=str,
)
async def test_without_a_valid_token_nothing_is_read_and_the_answer_is_always_the_same(
    token_file: Path, metadata: tuple[tuple[str, str], ...], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with serving(token_file) as (services, channel):
        texts = set()
        for method in (f"{WORK}/Unary", f"{ADMIN}/Unary", "test.Nothing/Unary", f"{WORK}/Nothing"):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await channel.unary_unary(f"/{method}")(b"x", metadata=metadata, timeout=30)
            assert caught.value.code() is UNAUTHENTICATED
            texts.add(caught.value.details())
        stream = channel.stream_stream(f"/{WORK}/Stream")(metadata=metadata, timeout=30)
        # Refused although it has sent nothing.
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stream.read()
        assert refused.value.code() is UNAUTHENTICATED
        texts.add(refused.value.details())
    assert len(texts) == 1
    assert services.seen == []
    logged = str([vars(record) for record in caplog.records])
    assert "UNAUTHENTICATED" in logged
    assert "token-of" not in logged
    assert "token-of" not in texts.pop()


async def test_a_valid_token_reaches_everything_but_the_operators_services(token_file: Path) -> None:
    async with serving(token_file) as (services, channel):
        for metadata in (bearer(USER), bearer(OPS), (("authorization", f"bearer  {USER}"),)):
            assert await unary(channel, WORK, metadata) == b"x"
            stream = channel.stream_stream(f"/{WORK}/Stream")(iter([b"a", b"b"]), metadata=metadata, timeout=30)
            assert [answer async for answer in stream] == [b"a", b"b"]
        seen = len(services.seen)
        with pytest.raises(grpc.aio.AioRpcError, match="role admin") as caught:
            await unary(channel, ADMIN, bearer(USER))
        assert caught.value.code() is DENIED
        assert len(services.seen) == seen
        assert await unary(channel, ADMIN, bearer(OPS)) == b"x"
        with pytest.raises(grpc.aio.AioRpcError) as unknown:
            await unary(channel, "test.Nothing", bearer(USER))
        assert unknown.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_without_tokens_everybody_may_work_and_nobody_is_an_operator() -> None:
    async with serving(None) as (_, channel):
        assert await unary(channel, WORK) == b"x"
        for metadata in ((), bearer(OPS)):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await unary(channel, ADMIN, metadata)
            assert caught.value.code() is DENIED


async def test_health_is_open_and_reflection_is_not(token_file: Path) -> None:
    async with serving(token_file) as (_, channel):
        answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=WORK))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        for version in ("v1", "v1alpha"):
            reflect = channel.stream_stream(
                f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
                request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
                response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
            )
            asked = [reflection_pb2.ServerReflectionRequest(list_services="")]
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                [_ async for _ in reflect(iter(asked), timeout=30)]
            assert caught.value.code() is UNAUTHENTICATED
            (listed,) = [one async for one in reflect(iter(asked), metadata=bearer(USER), timeout=30)]
            assert WORK in {service.name for service in listed.list_services_response.service}


async def test_a_token_that_is_taken_away_ends_its_open_streams_and_a_new_one_works_at_once(token_file: Path) -> None:
    async with serving(token_file) as (services, channel):
        stream = channel.stream_stream(f"/{WORK}/Stream")(metadata=bearer(USER), timeout=30)
        await stream.write(b"before")
        assert await stream.read() == b"before"
        token_file.write_text("user:the-next-token-of-a-user\n")
        await stream.write(b"after")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stream.read()
        assert caught.value.code() is UNAUTHENTICATED
        with pytest.raises(grpc.aio.AioRpcError) as again:
            await unary(channel, WORK, bearer(USER))
        assert again.value.code() is UNAUTHENTICATED
        assert await unary(channel, WORK, bearer("the-next-token-of-a-user")) == b"x"
    assert services.seen == [b"before", b"x"]


def pushback_ms(error: grpc.aio.AioRpcError) -> int:
    return int(str(dict(error.trailing_metadata())[PUSHBACK_KEY]))


async def test_each_token_has_its_own_rate_and_is_told_when_to_come_back(token_file: Path) -> None:
    clock = Clock()
    async with serving(token_file, Rate(10.0, 10), clock) as (services, channel):
        call = channel.unary_unary(f"/{WORK}/Unary")
        assert await call(b"12345678", metadata=bearer(USER)) == b"12345678"
        with pytest.raises(grpc.aio.AioRpcError, match="10 images per second") as caught:
            await call(b"refused", metadata=bearer(USER))
        assert caught.value.code() is EXHAUSTED
        assert pushback_ms(caught.value) == 500
        assert await call(b"operators", metadata=bearer(OPS)) == b"operators"
        clock.now_s += 0.5
        assert await call(b"1234567", metadata=bearer(USER)) == b"1234567"
    assert services.seen == [b"12345678", b"operators", b"1234567"]


async def test_bytes_that_are_no_message_cost_an_image(token_file: Path) -> None:
    async with serving(token_file, Rate(1.0, 2)) as (_, channel):
        codes = []
        for _ in range(3):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await channel.unary_unary(f"/{WORK}/Parsed")(b"\xff" * 9, metadata=bearer(USER), timeout=30)
            codes.append(caught.value.code())
    assert codes == [grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.INVALID_ARGUMENT, EXHAUSTED]


async def test_a_stream_pays_for_each_of_its_messages(token_file: Path) -> None:
    clock = Clock()
    async with serving(token_file, Rate(10.0, 10), clock) as (services, channel):
        stream = channel.stream_stream(f"/{WORK}/Stream")(metadata=bearer(USER), timeout=30)
        for message in (b"1234", b"5678"):
            await stream.write(message)
            assert await stream.read() == message
        clock.now_s += 0.2
        await stream.write(b"9012")
        assert await stream.read() == b"9012"
        await stream.write(b"3456")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stream.read()
        assert caught.value.code() is EXHAUSTED
        assert pushback_ms(caught.value) == 400
    assert services.seen == [b"1234", b"5678", b"9012"]


async def test_without_tokens_an_address_has_a_rate_whatever_its_connections() -> None:
    async with serving(None, Rate(1.0, 10)) as (services, channel):
        call = channel.unary_unary(f"/{WORK}/Unary")
        assert await call(b"1234567890") == b"1234567890"
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(services.address, options=options) as other:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await other.unary_unary(f"/{WORK}/Unary")(b"1")
            assert caught.value.code() is EXHAUSTED
