"""Calls that arrive while the event loop is busy wait for it: gRPC must not turn them away behind our back."""

import contextlib
import io
import socket

from scripts.soak.http2 import ACK, HEADERS, PING, PREFACE, RST_STREAM, SETTINGS, frame, start_of_call
from serving.limits import MAX_CALLS_OF_A_CONNECTION
from support.engines import EchoEngine
from support.inside import request
from support.scrape import serving

CONNECTIONS = 20
"""More calls than gRPC lets wait by itself: beyond 1,000 it ends some of them at random, beyond 3,000 all."""


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
                calls = b"".join(start_of_call(2 * i + 1) for i in range(MAX_CALLS_OF_A_CONNECTION))
                connection.sendall(PREFACE + frame(SETTINGS, 0, 0, b"") + calls + frame(PING, 0, 0, bytes(8)))
            for _, stream in streams:
                assert until_ping_is_answered(stream) == []
            # What was on its way when the first ping was answered is here before the second answer.
            for connection, stream in streams:
                connection.sendall(frame(PING, 0, 0, bytes(8)))
                assert until_ping_is_answered(stream) == []
        # They are gone with their connections; the next one is served.
        assert (await stub.Predict(request([7]))).realness == [7.0]
