"""What one client can demand of gRPC itself, before a request reaches our code."""

from serving.config import Config

MAX_PENDING_CALLS = 16_384
"""About three seconds of single images, at some 16 KB each."""
MAX_CALLS_OF_A_CONNECTION = 256
"""Each may be receiving a message of the largest size, which nothing of ours can see or count before it is whole."""


def channel_options(config: Config) -> tuple[tuple[str, int], ...]:
    """Returns the options of the server's port; each says what it defends."""
    max_message_bytes = config.max_message_mib << 20
    return (
        # Memory: a longer message is refused by its length, before it is read; a compressed one while it is unpacked.
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", max_message_bytes),
        # One connection's share of a server. Clients keep further calls back until one ends, or open more connections.
        ("grpc.max_concurrent_streams", MAX_CALLS_OF_A_CONNECTION),
        # Calls that the event loop has not begun. Left alone, gRPC ends calls at random as CANCELLED from 1,000 on, and
        # all from 3,000 on: a crowd that comes at once, or a second of work that piles up. Equal ones make it a limit.
        ("grpc.server.max_pending_requests", MAX_PENDING_CALLS),
        ("grpc.server.max_pending_requests_hard_limit", MAX_PENDING_CALLS),
        # File descriptors, and with the line above the number of open calls.
        ("grpc.max_allowed_incoming_connections", config.max_connections),
        # Connections that never finish their handshake would hold those places; a slow network needs about a second.
        ("grpc.server_handshake_timeout_ms", 10_000),
        # Connections without a call give their place back; a client connects again when it needs one.
        ("grpc.max_connection_idle_ms", 30 * 60_000),
        # Peers that vanished without a word are noticed after 80 s, and their calls end.
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        # Pings cost work and bring none: the third one that comes too soon ends the connection. Our client sends one a
        # minute while it waits for an answer; gRPC's own limit of five minutes would end such connections.
        ("grpc.http2.min_ping_interval_without_data_ms", 30_000),
        ("grpc.http2.max_ping_strikes", 2),
        # Memory of a call before it is authenticated. A token, a deadline and trace headers need less than 2 KiB. gRPC
        # refuses at random between the two; equal ones make it a limit.
        ("grpc.max_metadata_size", 8 << 10),
        ("grpc.absolute_max_metadata_size", 8 << 10),
        # A second server on the same port would take half of the connections instead of an error. Several processes of
        # one server are meant to; `serving.shared_port` then sees to it that there is no other server.
        ("grpc.so_reuseport", int(config.processes > 1)),
    )
