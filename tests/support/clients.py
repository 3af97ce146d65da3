"""What the tests of both clients share."""

import grpc
import numpy as np

from prelabel.images import ImageSpec, Pixels
from prelabel.predictions import PredictionBatch

CLASSES = ("a", "b", "c")
SPEC = ImageSpec(6, 5, 1)
UNAVAILABLE, EXHAUSTED = grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED


class Time:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.sleeps = 0

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        self.sleeps += 1

    async def sleep_aio(self, seconds: float) -> None:
        self.sleep(seconds)

    def clock(self) -> float:
        return self.now_s


def images(count: int, seed: int = 0) -> Pixels:
    """Images of different brightness, so that their answers differ."""
    generator = np.random.default_rng(seed)
    return (generator.integers(0, 256, (count, 1, 1, 1)) * generator.random((count, *SPEC.shape))).astype(np.uint8)


def assert_same(given: PredictionBatch, wanted: PredictionBatch) -> None:
    np.testing.assert_array_equal(given.probabilities, wanted.probabilities)
    np.testing.assert_array_equal(given.realness, wanted.realness)
    assert (given.model_id, given.errors) == (wanted.model_id, wanted.errors)
