"""Which images take part in which step: two samplers, one for labelled and one for unlabelled images.

Both are functions of (seed, step) alone, so a resumed run sees the same images as one that was never interrupted.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

TURNS = 1 << 32
"""Added to the seed of the classes' turns, so that they are other random numbers than those of a step."""
Positions = NDArray[np.int64]
"""int64 [B]: positions in an array of images."""


@dataclass
class EpochSampler:
    """Walks through `size` positions in a new random order each epoch, `batch` at a time, over epoch borders."""

    size: int
    batch: int
    seed: int
    _orders: dict[int, Positions] = field(default_factory=dict)

    def positions(self, step: int) -> Positions:
        """Returns int64 [batch] for a step (0, 1, ...)."""
        flat = np.arange(step * self.batch, (step + 1) * self.batch)
        epochs, offsets = flat // self.size, flat % self.size
        return np.array([self._order(e)[o] for e, o in zip(epochs.tolist(), offsets.tolist(), strict=True)], np.int64)

    def _order(self, epoch: int) -> Positions:
        if epoch not in self._orders:
            self._orders = {e: order for e, order in self._orders.items() if e >= epoch - 1}
            self._orders[epoch] = np.random.default_rng([self.seed, epoch]).permutation(self.size)
        return self._orders[epoch]


@dataclass(frozen=True)
class BalancedSampler:
    """Draws labelled images, of each class as many, whatever the classes' sizes.

    A batch holds each of K classes B // K times. The B % K places that are left go to the classes in turns, so that
    over a few steps all have had as many; with more classes than places those are all places.
    """

    labels: NDArray[np.int32]
    batch: int
    seed: int

    def positions(self, step: int) -> Positions:
        """Returns int64 [batch] for a step (0, 1, ...)."""
        generator = np.random.default_rng([self.seed, step])
        count = int(self.labels.max()) + 1
        each, left = divmod(self.batch, count)
        turns = EpochSampler(count, left, self.seed + TURNS).positions(step)
        classes = generator.permutation(np.concatenate([np.tile(np.arange(count), each), turns]))
        chosen = np.empty(self.batch, np.int64)
        for k in np.unique(classes):
            places = np.flatnonzero(classes == k)
            members = np.flatnonzero(self.labels == k)
            # Without replacement as far as the class goes: a batch should not hold one image twice.
            rounds = -(-len(places) // len(members))
            order = np.concatenate([generator.permutation(members) for _ in range(rounds)])
            chosen[places] = order[: len(places)]
        return chosen
