"""What could not be loaded, and when it is tried again."""

import asyncio
from dataclasses import dataclass

RETRY_S, LONGEST_RETRY_S = 5.0, 300.0
"""Seconds after which a bundle that could not be loaded is tried again, doubled each time up to the longest: it may
have been on its way into the folder, or memory may be free again."""


@dataclass(frozen=True)
class Failure:
    """A bundle that could not be loaded."""

    signature: str
    """Of the bundle, as `serving.repository.Found` has it."""
    error: str
    """Why."""
    wait_s: float
    """Seconds until it is tried again."""
    again_at_s: float
    """When that is, by the event loop's clock."""

    @property
    def is_due(self) -> bool:
        """Whether it is to be tried again; asked in the event loop."""
        return asyncio.get_running_loop().time() >= self.again_at_s


def failed(before: Failure | None, signature: str, error: str) -> Failure:
    """Returns what failed now, after `before`, if that version failed before; called in the event loop.

    Another bundle of the version starts anew: it is tried as soon as the first one was.
    """
    wait_s = RETRY_S
    if before is not None and before.signature == signature:
        wait_s = min(2.0 * before.wait_s, LONGEST_RETRY_S)
    return Failure(signature, error, wait_s, asyncio.get_running_loop().time() + wait_s)
