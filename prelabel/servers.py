"""Which of several servers gets the next call: the least busy one among those that answer.

gRPC has a `round_robin` policy of its own. It takes IP addresses or one DNS name, knows connections but neither load
nor a full queue, and its errors do not say which server failed; so each server has a channel, and the choice is here.
"""

import re
import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from prelabel.errors import InputError
from prelabel.retry import delay_after


@dataclass(eq=False)
class Server:
    """One server as the client knows it."""

    address: str
    """`HOST:PORT`."""
    load: int = 0
    """Batches that may be unanswered there: 1 for a call, the window for a stream."""
    last_turn: int = 0
    """When it was chosen last; of equally busy servers the one that waited longest is next."""
    failures: int = 0
    """Failures since the last answer."""
    away_until_s: float = float("-inf")
    """Before this time it is chosen only where no other is up."""


class Servers:
    """The servers of one client; safe to use from several threads.

    Args:
        addresses: `HOST:PORT`, several with commas between or as a sequence.
        clock: Seconds, monotonic.

    Raises:
        InputError: There is no address, one has no host or port, or one comes twice.
    """

    def __init__(self, addresses: str | Sequence[str], clock: Callable[[], float]) -> None:
        given = addresses.split(",") if isinstance(addresses, str) else addresses
        self._all = [Server(_checked(address.strip())) for address in given]
        if not self._all:
            raise InputError("no server address was given: HOST:PORT wanted, for example 127.0.0.1:50051")
        if twice := {one.address for one in self._all if sum(one.address == other.address for other in self._all) > 1}:
            raise InputError(f"server address {min(twice)} was given twice: give each server once")
        self._clock = clock
        self._lock = threading.Lock()
        self._turn = 0

    def __str__(self) -> str:
        return ", ".join(server.address for server in self._all)

    def every(self) -> Sequence[Server]:
        """Returns all servers, in the order in which they were given."""
        return self._all

    def take(self, load: int, avoid: Collection[Server] = ()) -> Server:
        """Chooses a server and counts `load` on it, until it is given back.

        Args:
            load: Most batches that will be unanswered there.
            avoid: Servers that come last, because the caller tried them just now.
        """
        with self._lock:
            now_s = self._clock()
            chosen = min(
                self._all,
                key=lambda one: (max(one.away_until_s - now_s, 0.0), one in avoid, one.load, one.last_turn),
            )
            self._turn += 1
            chosen.last_turn = self._turn
            chosen.load += load
            return chosen

    def give_back(self, server: Server, load: int) -> None:
        """Ends what `take` began."""
        with self._lock:
            server.load -= load

    def is_one_up(self, avoid: Collection[Server]) -> bool:
        """Says whether a server outside of `avoid` is worth a try at once."""
        with self._lock:
            now_s = self._clock()
            return any(one.away_until_s <= now_s and one not in avoid for one in self._all)

    def failed(self, server: Server, stay_away_s: float) -> None:
        """Skips a server for a while, longer after every failure, and at least as long as it asks for."""
        with self._lock:
            server.failures += 1
            server.away_until_s = self._clock() + max(delay_after(server.failures), stay_away_s)

    def succeeded(self, server: Server) -> None:
        """Counts on a server again."""
        with self._lock:
            server.failures, server.away_until_s = 0, float("-inf")


_WEB = re.compile(r"(https?|grpcs?)://", re.IGNORECASE)
"""How a web address starts: gRPC would take it for a host's name that nobody knows, and try for a minute."""


def _checked(address: str) -> str:
    host, _, port = address.rpartition(":")
    if (
        not host
        or "," in host
        or _WEB.match(host)
        or not (port.isascii() and port.isdigit() and 0 < int(port) <= 65535)
    ):
        raise InputError(f"server address {address!r} is not HOST:PORT, for example 127.0.0.1:50051")
    return address
