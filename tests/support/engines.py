"""An engine without a model: every image carries its own answer, and the test sees what reaches the engine."""

import asyncio
import threading
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from prelabel.bundle import MODEL_FILE, Bundle, Parity
from prelabel.images import ImageSpec
from prelabel.predictions import PredictionBatch, from_model

ECHO_BUNDLE = Bundle(
    name="echo",
    classes=("even", "odd"),
    input=ImageSpec(1, 4, 1),
    opset=17,
    parity=Parity(0, 0, 0.0, 0, 1e-4),
    training={},
    files={MODEL_FILE: "0" * 64},
)


def marked(marks: range | list[int]) -> NDArray[np.uint8]:
    """Images uint8 [B, 1, 4, 1] that carry one number < 2^24 each."""
    return np.array(list(marks), "<u4").view(np.uint8).reshape(-1, 1, 4, 1)


def marks_of(batch: PredictionBatch) -> list[int]:
    """The numbers that the answers carry; rows with errors are left out."""
    return [int(mark) for i, mark in enumerate(batch.realness) if i not in batch.errors]


@dataclass
class EchoEngine:
    """Answers each image with its mark as `realness`; records the batches, can be held, and fails on marks."""

    bundle: Bundle = ECHO_BUNDLE
    execution_provider: str = "EchoEngine"
    gpus: tuple[int, ...] = ()
    batches: list[list[int]] = field(default_factory=list)
    """Marks of each batch, in the order in which they reached the engine."""
    broken: frozenset[int] = frozenset()
    """A batch with one of these marks raises."""
    not_finite: frozenset[int] = frozenset()
    """These marks are answered with NaN."""
    gate: threading.Event = field(default_factory=threading.Event)
    """Cleared: inferences wait."""
    entered: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    """Released once for each inference that begins."""

    def __post_init__(self) -> None:
        self.gate.set()

    @property
    def seen(self) -> set[int]:
        """Every mark that reached the engine."""
        return {mark for batch in self.batches for mark in batch}

    def predict(self, images: NDArray[np.uint8]) -> PredictionBatch:
        marks = np.ascontiguousarray(images).reshape(len(images), 4).view("<u4").ravel()
        self.batches.append(marks.tolist())
        self.entered.release()
        assert self.gate.wait(30), "the test never opened the gate"
        if self.broken & set(marks.tolist()):
            raise RuntimeError("secret of the engine")
        odd = (marks % 2).astype(np.float32)
        realness = marks.astype(np.float32)
        realness[np.isin(marks, list(self.not_finite))] = np.nan
        return from_model(np.stack([1 - odd, odd], axis=1), realness, self.bundle.model_id)


async def entered(engine: EchoEngine) -> None:
    """Waits until one more inference has begun."""
    assert await asyncio.to_thread(engine.entered.acquire, timeout=30)
