"""One port for several processes: Linux spreads new connections over those that listen on it (SO_REUSEPORT)."""

import contextlib
import socket
from collections.abc import Iterator

from serving.server import cannot_listen


@contextlib.contextmanager
def held_port(host: str, port: int) -> Iterator[int]:
    """Keeps a port for this user's processes while none of them listens, and yields its number.

    Args:
        host: As for `--host`.
        port: 0 takes a free one.

    Raises:
        InputError: The port is in use, also where another server shares it in the same way: each would get a part of
            the other's connections.
    """
    with contextlib.ExitStack() as stack:
        try:
            family, _, _, _, address = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
            with socket.socket(family) as alone:
                # Not hindered by connections of a server that has just ended, but by everybody who holds the port.
                alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                alone.bind(address)
            held = stack.enter_context(socket.socket(family))
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            held.bind(address)
        except OSError as error:
            raise cannot_listen(f"{host}:{port}") from error
        # It never listens, so no connection comes to it.
        yield held.getsockname()[1]
