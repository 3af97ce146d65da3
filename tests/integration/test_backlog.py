"""Calls that arrive while the event loop is busy wait for it: gRPC must not turn them away behind our back."""

import contextlib
import io
import socket
import struct

from support.engines import EchoEngine
from support.inside import request
from support.scrape import serving

CALLS_OF_A_CONNECTION = 1000
CONNECTIONS = 5
"""More calls than gRPC lets wait by itself: beyond 1,000 it ends some of them at random, beyond 3,000 all."""

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADERS, RST_STREAM, SETTINGS, PING = 1, 3, 4, 6
ACK = END_STREAM = 1
END_HEADERS = 4


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def a_call(stream: int) -> bytes:
    """Opens a call of Predict, without compression; its message may come later."""
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": "/prelabel.v1.PrelabelService/Predict",
        ":authority": "test",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    block = b"".join(
        b"\x00" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
        for name, value in fields.items()
    )
    return frame(HEADERS, END_HEADERS, stream, block)


def until_ping_is_answered(stream: io.BufferedReader) -> list[int]:
    """Reads up to the answer to a ping; returns the calls that the server has ended before."""
    ended = []
    while True:
        head = stream.read(9)
        assert len(head) == 9, "the server closed the connection"
        stream.read(int.from_bytes(head[:3], "big"))
        kind, flags, number = head[3], head[4], int.from_bytes(head[5:], "big")
        if kind == PING and flags & ACK:
            return ended
        if kind in (HEADERS, RST_STREAM):
            ended.append(number)


async def test_calls_wait_for_a_busy_event_loop() -> None:
    async with serving(EchoEngine()) as (server, stub):
        with contextlib.ExitStack() as stack:
            # Nothing in this block lets the event loop go on: the server cannot begin a call.
            streams = []
            for _ in range(CONNECTIONS):
                connection = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=30))
                streams.append((connection, stack.enter_context(connection.makefile("rb"))))
                calls = b"".join(a_call(2 * i + 1) for i in range(CALLS_OF_A_CONNECTION))
                connection.sendall(PREFACE + frame(SETTINGS, 0, 0, b"") + calls + frame(PING, 0, 0, bytes(8)))
            for _, stream in streams:
                assert until_ping_is_answered(stream) == []
            # What was on its way when the first ping was answered is here before the second answer.
            for connection, stream in streams:
                connection.sendall(frame(PING, 0, 0, bytes(8)))
                assert until_ping_is_answered(stream) == []
        # They are gone with their connections; the next one is served.
        assert (await stub.Predict(request([7]))).realness == [7.0]
