"""Peers that do not speak gRPC, stop in the middle of it, or open more connections than they need."""

import asyncio
import contextlib
import random
import struct

from prelabel.v1 import prelabel_pb2 as v1
from prelabel.wire import MAX_MESSAGE_BYTES
from scripts.soak.http2 import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    frame,
    start_of_call,
)
from scripts.soak.model import Marked
from scripts.soak.tally import Tally

_READ_S = 0.2
"""How long a peer listens to what it is told."""


def payloads(rng: random.Random) -> dict[str, bytes]:
    """Name -> what such a peer sends."""
    hello = PREFACE + frame(SETTINGS, 0, 0, b"")
    message = b"\x00" + struct.pack(">I", 1000) + rng.randbytes(500)
    pixels = Marked((0,)).pixels()
    tensor = v1.ImageTensor(shape=pixels.shape, dtype=v1.DATA_TYPE_UINT8, data=pixels.tobytes())
    request = v1.PredictRequest(tensor=tensor).SerializeToString()
    request = b"\x00" + struct.pack(">I", len(request)) + request
    no_window = PREFACE + frame(SETTINGS, 0, 0, struct.pack(">HI", INITIAL_WINDOW_SIZE, 0))
    too_long = b"\x00" + struct.pack(">I", MAX_MESSAGE_BYTES + 1)
    return {
        "nothing": b"",
        "random bytes": rng.randbytes(rng.randint(1, 2000)),
        "HTTP/1.1": b"GET / HTTP/1.1\r\nHost: soak\r\n\r\n",
        "TLS": bytes.fromhex("16030100c8010000c40303") + rng.randbytes(193),
        "half a preface": PREFACE[: rng.randint(1, len(PREFACE) - 1)],
        "preface and silence": hello,
        "random frames": hello + b"".join(
            frame(rng.randint(0, 12), rng.randint(0, 255), rng.randint(0, 9), rng.randbytes(rng.randint(0, 99)))
            for _ in range(20)
        ),
        "random headers": hello + frame(HEADERS, END_HEADERS, 1, rng.randbytes(100)),
        "half a frame": hello + start_of_call(1) + frame(DATA, 0, 1, message, len(message) + 100),
        "half a message": hello + start_of_call(1) + frame(DATA, 0, 1, message),
        "a frame too long": hello + start_of_call(1) + frame(DATA, 0, 1, message, (1 << 24) - 1),
        "a message too long": hello + start_of_call(1) + frame(DATA, 0, 1, too_long),
        "pings": hello + frame(PING, 0, 0, bytes(8)) * 500,
        "never opens its window": no_window + b"".join(
            start_of_call(stream) + frame(DATA, END_STREAM, stream, request) for stream in range(1, 60, 2)
        ),
        "resets": hello + b"".join(
            start_of_call(stream) + frame(RST_STREAM, 0, stream, struct.pack(">I", 8)) for stream in range(1, 400, 2)
        ),
    }  # fmt: skip


async def intrude(address: str, tally: Tally, rng: random.Random) -> None:
    """Sends one payload in pieces, listens a moment, and hangs up: politely or not."""
    host, _, port = address.rpartition(":")
    kind, payload = rng.choice([*payloads(rng).items()])
    # The server may hang up first; that is an answer, too.
    with contextlib.suppress(OSError):
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            cut = rng.randint(0, len(payload))
            writer.write(payload[:cut])
            await writer.drain()
            writer.write(payload[cut:])
            await writer.drain()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_READ_S):
                    await reader.read()
        finally:
            if rng.random() < 0.5:
                writer.transport.abort()
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
    tally.outcomes[f"intruder, {kind}: gone"] += 1
