"""A model inside this process in the place of a server: `prelabel run --model BUNDLE`."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from prelabel.engine import Engine, load_engine
from prelabel.images import ImageSpec, Pixels
from prelabel.predictions import PredictionBatch

MAX_BATCH_IMAGES = 1024
"""Most images in one inference; larger batches cost memory and gain nothing."""


@dataclass(frozen=True)
class EmbeddedModel:
    """What the loaded model is; the counterpart of the client's model information."""

    model_id: str
    """Identity of the model."""
    name: str
    """Name of the training run."""
    classes: tuple[str, ...]
    """K class names in label order."""
    input: ImageSpec
    """What one image has to be."""
    execution_provider: str
    """What runs the model."""
    max_request_images: int = MAX_BATCH_IMAGES
    """Most images in one batch."""


@dataclass(frozen=True)
class EmbeddedPredictor:
    """Answers batches with an engine of this process; decoding goes on in other threads meanwhile."""

    engine: Engine
    """The loaded model."""

    def model(self) -> EmbeddedModel:
        """Returns what the loaded model is."""
        bundle = self.engine.bundle
        return EmbeddedModel(bundle.model_id, bundle.name, bundle.classes, bundle.input, self.engine.execution_provider)

    def predict_stream(self, batches: Iterator[Pixels], window: int = 1) -> Iterator[PredictionBatch]:
        """Yields one answer per batch, in order; `window` has no meaning here."""
        for pixels in batches:
            yield self.engine.predict(pixels)


def load_predictor(directory: Path, device: Literal["auto", "cuda", "cpu"], threads: int) -> EmbeddedPredictor:
    """Loads a bundle; see `prelabel.engine.load_engine` for the arguments and errors."""
    return EmbeddedPredictor(load_engine(directory, device, threads))
