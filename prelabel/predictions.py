"""What a model says about images: columns for bulk work, one object per image for people."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from prelabel.images import ImageSpec

Priority = Literal["interactive", "bulk"]
"""Who waits for an answer: a person, or a program that works through a pile."""

FAILED_LABEL = -1
"""Label index of an item that has an error instead of a prediction."""


class Model(Protocol):
    """What callers need to know of a model: a server's, or one of an engine in this process."""

    @property
    def model_id(self) -> str:
        """Identity of the model."""

    @property
    def classes(self) -> tuple[str, ...]:
        """K class names in label order."""

    @property
    def input(self) -> ImageSpec:
        """What one image has to be."""

    @property
    def execution_provider(self) -> str:
        """What runs it, for example `OpenVINO float32`; "" where that is not known."""

    @property
    def max_request_images(self) -> int:
        """Most images in one request or batch."""


@dataclass(frozen=True)
class Prediction:
    """The answer for one image: either a prediction (`error` is None) or an error."""

    label: str | None
    """Most probable class; None for an error."""
    confidence: float
    """Probability of that class, 0..1; NaN for an error."""
    probabilities: dict[str, float]
    """Class name -> probability, in the order of the model's classes; empty for an error."""
    realness: float
    """0..1: how real the discriminator finds the image, sigmoid(logsumexp(logits)); NaN for an error."""
    model_id: str
    """The model that made it."""
    error: str | None = None
    """Why there is no prediction."""


@dataclass(frozen=True)
class PredictionBatch:
    """The answers for B images over K classes, column-wise; rows of failed items hold NaN and `FAILED_LABEL`."""

    probabilities: NDArray[np.float32]
    """float32 [B, K], 0..1, rows sum to 1."""
    realness: NDArray[np.float32]
    """float32 [B], 0..1."""
    model_id: str
    """The model that made them."""
    errors: dict[int, str] = field(default_factory=dict)
    """Position in the batch -> why that item failed."""

    def __len__(self) -> int:
        return len(self.realness)

    @property
    def label_index(self) -> NDArray[np.int32]:
        """int32 [B]: index of the most probable class, `FAILED_LABEL` for failed items."""
        index: NDArray[np.int32] = self.probabilities.argmax(axis=1).astype(np.int32)
        index[list(self.errors)] = FAILED_LABEL
        return index

    @property
    def confidence(self) -> NDArray[np.float32]:
        """float32 [B], 0..1: the largest probability, NaN for failed items."""
        confidence: NDArray[np.float32] = self.probabilities.max(axis=1)
        return confidence

    def rows(self, classes: Sequence[str]) -> Iterator[Prediction]:
        """Yields one `Prediction` per image, in order."""
        label_index, confidence = self.label_index, self.confidence
        for i in range(len(self)):
            if i in self.errors:
                yield Prediction(None, float("nan"), {}, float("nan"), self.model_id, self.errors[i])
            else:
                yield Prediction(
                    label=classes[label_index[i]],
                    confidence=float(confidence[i]),
                    probabilities=dict(zip(classes, self.probabilities[i].tolist(), strict=True)),
                    realness=float(self.realness[i]),
                    model_id=self.model_id,
                )


def from_model(probabilities: NDArray[np.float32], realness: NDArray[np.float32], model_id: str) -> PredictionBatch:
    """Returns a model's raw outputs as predictions; rows that are not finite become errors.

    Args:
        probabilities: float32 [B, K].
        realness: float32 [B].
        model_id: The model that made them.
    """
    broken = ~(np.isfinite(probabilities).all(axis=1) & np.isfinite(realness))
    if not broken.any():
        return PredictionBatch(probabilities, realness, model_id)
    # The most probable class of NaNs would be the first one.
    message = "the model's answer is not a number (NaN or infinite)"
    return PredictionBatch(
        np.where(broken[:, None], np.float32(np.nan), probabilities),
        np.where(broken, np.float32(np.nan), realness),
        model_id,
        {int(i): message for i in np.flatnonzero(broken)},
    )


def joined(batches: Sequence[PredictionBatch]) -> PredictionBatch:
    """Returns the answers of one model, one batch behind the other, as one batch."""
    starts = np.cumsum([0, *map(len, batches)]).tolist()
    return PredictionBatch(
        np.concatenate([batch.probabilities for batch in batches]),
        np.concatenate([batch.realness for batch in batches]),
        batches[0].model_id,
        {start + i: why for start, batch in zip(starts, batches, strict=False) for i, why in batch.errors.items()},
    )


def with_failures(batch: PredictionBatch, errors: dict[int, str], total: int) -> PredictionBatch:
    """Spreads the predictions of the good items over `total` rows and puts `errors` in the others.

    Args:
        batch: Predictions for the items that are not in `errors`, in their order.
        errors: Position among the `total` items -> why that item was not predicted.
        total: Number of items, good and failed.

    Raises:
        ValueError: `batch` does not hold exactly the items that are not in `errors`.
    """
    if not errors and not batch.errors and len(batch) == total:
        return batch
    good = np.setdiff1d(np.arange(total), np.fromiter(errors, np.int64, len(errors)))
    # NumPy would spread a single prediction over all good rows without a word.
    if len(batch) != len(good) or len(good) + len(errors) != total:
        raise ValueError(f"{len(batch)} predictions and {len(errors)} failures do not make up {total} items")
    probabilities = np.full((total, batch.probabilities.shape[1]), np.nan, np.float32)
    realness = np.full(total, np.nan, np.float32)
    probabilities[good], realness[good] = batch.probabilities, batch.realness
    later = {int(good[i]): message for i, message in batch.errors.items()}
    return PredictionBatch(probabilities, realness, batch.model_id, dict(sorted((errors | later).items())))


def without(batch: PredictionBatch, errors: dict[int, str]) -> PredictionBatch:
    """Replaces the predictions of some items, by position, by the reasons why they are none."""
    if not errors:
        return batch
    probabilities, realness = batch.probabilities.copy(), batch.realness.copy()
    probabilities[list(errors)], realness[list(errors)] = np.nan, np.nan
    return PredictionBatch(probabilities, realness, batch.model_id, dict(sorted((batch.errors | errors).items())))
