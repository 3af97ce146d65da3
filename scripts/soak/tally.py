"""What came of every request: one right answer, one clear error, or a violation."""

import re
from collections import Counter

import grpc
import numpy as np
from numpy.typing import NDArray

from scripts.soak.model import Marked

_ERROR_ID = re.compile(r"internal error ([0-9a-f]{32}): the server's log has the details under this id")
_LOST = "Internal error from Core"
"""gRPC's asyncio client says so in place of the status where a server ends a stream into which the client writes."""
_MAX_SHOWN = 50


class Tally:
    """Counts outcomes and keeps the first violations."""

    def __init__(self) -> None:
        self.model_ids: set[str] = set()
        """Models that may answer."""
        self.outcomes: Counter[str] = Counter()
        """"KIND: OUTCOME" -> how often."""
        self.images = 0
        """Images with a right answer."""
        self.violations: list[str] = []
        self.violation_count = 0
        self.error_ids: set[str] = set()
        """Ids of internal errors that clients were told."""
        self.away: frozenset[grpc.StatusCode] = frozenset()
        """What clients may be told while the server is being ended; empty while it serves."""

    def answered(
        self,
        kind: str,
        images: Marked,
        model_id: str,
        realness: NDArray[np.float32],
        probabilities: NDArray[np.float32],
        failed: set[int],
    ) -> None:
        """Checks an answer: realness float32 [B], probabilities float32 [B, 2], positions with an error."""
        difference = images.difference(realness, probabilities, failed)
        if images.raises:
            difference = "an answer from an engine that raised"
        elif model_id not in self.model_ids:
            difference = f"model_id {model_id}"
        if difference:
            self.violation(f"{kind}: {difference}")
            return
        self.outcomes[f"{kind}: right"] += 1
        self.images += len(images.marks)

    def refused(self, kind: str, error: grpc.RpcError, allowed: frozenset[grpc.StatusCode] = frozenset()) -> None:
        """Checks an error: one that such a request may get, a full queue, the engine's failure, or a server away."""
        code, details = error.code(), str(error.details())
        self.outcomes[f"{kind}: {code.name}"] += 1
        if code in allowed or code in self.away or (kind == "stream" and details == _LOST):
            return
        if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "queue is full" in details:
            return
        if code is grpc.StatusCode.INTERNAL and (found := _ERROR_ID.fullmatch(details)):
            # A failed inference fails all requests of its batch, those that did nothing wrong among them.
            self.error_ids.add(found[1])
            return
        self.violation(f"{kind}: {code.name}: {details[:200]}")

    def violation(self, text: str) -> None:
        """Notes what must not happen."""
        self.violation_count += 1
        if len(self.violations) < _MAX_SHOWN:
            self.violations.append(text)
