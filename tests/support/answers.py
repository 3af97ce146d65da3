"""Answers of classifiers: made-up ones, and ones that are calibrated by construction."""

from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

Answers = tuple[NDArray[np.float32], NDArray[np.int64]]


def softmax(logits: NDArray[Any]) -> NDArray[Any]:
    powers: NDArray[Any] = np.exp(logits - logits.max(axis=1, keepdims=True))
    powers /= powers.sum(axis=1, keepdims=True)
    return powers


@st.composite
def answers(draw: st.DrawFn) -> Answers:
    """Probabilities of a float32 softmax, from vague ones to exact zeros and ones, with labels that often fit."""
    count, classes = draw(st.integers(1, 40)), draw(st.integers(2, 6))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scale = draw(st.sampled_from([0.0, 0.1, 1.0, 5.0, 50.0, 1000.0]))
    probabilities = softmax(generator.normal(size=(count, classes)).astype(np.float32) * np.float32(scale))
    guess = generator.integers(0, classes, count)
    right = generator.random(count) < draw(st.sampled_from([0.0, 0.5, 0.9, 1.0]))
    return probabilities, np.where(right, probabilities.argmax(axis=1), guess)


def sampled(count: int, classes: int, sharpness: float, seed: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Logits, and labels that were drawn from softmax(logits): probabilities that are calibrated by construction."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(count, classes)) * sharpness
    draws = generator.random((count, 1))
    return logits, (softmax(logits).cumsum(axis=1) < draws).sum(axis=1).clip(0, classes - 1)


GOOD = np.array([[0.25, 0.75], [0.5, 0.5]])
