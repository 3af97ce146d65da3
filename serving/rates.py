"""How many images each caller may send: a token bucket in images for each of them."""

import ipaddress
import math
import time
import urllib.parse
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from prelabel.errors import InputError, OverloadedError

MAX_CALLERS = 4096
"""Buckets that are kept, some 200 bytes each. The one that was not used for longest goes first: it is the fullest."""


@dataclass(frozen=True)
class Rate:
    """A bucket's size and what flows into it."""

    images_per_s: float
    """Images that one caller may send in the long run; infinity: no limit."""
    burst_images: int
    """Images that a caller may send at once after a pause."""

    def __post_init__(self) -> None:
        if not self.images_per_s > 0:
            raise InputError(f"the rate limit is {self.images_per_s} images per second: more than 0 wanted")
        if self.burst_images < 1:
            raise InputError(f"the rate limit's burst is {self.burst_images} images: at least 1 wanted")


class RateLimiter:
    """The buckets of all callers; used from one thread.

    A message passes where the bucket holds its images, or is full: one that is larger than the bucket leaves a debt.

    Args:
        rate: The same for every caller.
        clock: Replaces `time.monotonic`.
    """

    def __init__(self, rate: Rate, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._clock = rate, clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """Caller -> (images in the bucket, when that was so), the least recently used first."""

    def take(self, caller: str, images: int) -> None:
        """Takes images out of a caller's bucket.

        Raises:
            OverloadedError: There are not so many; it says when there will be.
        """
        rate, burst = self._rate.images_per_s, self._rate.burst_images
        if math.isinf(rate):
            return
        now_s = self._clock()
        level, at_s = self._buckets.get(caller, (float(burst), now_s))
        level = min(burst, level + rate * (now_s - at_s))
        wanted = min(images, burst)
        # The rounding of clocks must not send a client away that came back exactly when it was told to.
        if level < wanted - 1e-6 * burst:
            after_s = (wanted - level) / rate
            raise OverloadedError(
                f"over the limit of {rate:g} images per second (at once {burst}): {images} more in {after_s:.1f} s",
                retry_after_s=after_s,
            )
        self._buckets[caller] = (level - images, now_s)
        self._buckets.move_to_end(caller)
        while len(self._buckets) > MAX_CALLERS:
            self._buckets.popitem(last=False)

    def __len__(self) -> int:
        """Buckets that are kept."""
        return len(self._buckets)


def caller_of(peer: str) -> str:
    """Returns whom a gRPC peer (`ipv4:1.2.3.4:567`, `ipv6:%5B::1%5D:567`, `unix:...`) is counted as.

    Ports are left out. A whole /64 is one IPv6 caller: that is what one customer of a network has to choose from.
    """
    family, _, rest = urllib.parse.unquote(peer).partition(":")
    host = rest.rpartition(":")[0].strip("[]").partition("%")[0]
    if family not in ("ipv4", "ipv6"):
        return family
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return peer
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(address), 64), strict=False))
