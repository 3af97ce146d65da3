"""A model inside this process in the place of a server: `prelabel run --model BUNDLE`."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from prelabel.engine import Device, Engine, PrecisionChoice, RuntimeChoice, load_engine, parallel_calls
from prelabel.engine_choice import Way
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
    callers: int = 1
    """Batches that are in inference at the same time."""

    def model(self) -> EmbeddedModel:
        """Returns what the loaded model is."""
        bundle = self.engine.bundle
        return EmbeddedModel(bundle.model_id, bundle.name, bundle.classes, bundle.input, self.engine.execution_provider)

    def predict_stream(self, batches: Iterator[Pixels], window: int = 1) -> Iterator[PredictionBatch]:
        """Yields one answer per batch, in order; `window` has no meaning here."""
        running: deque[Future[PredictionBatch]] = deque()
        with ThreadPoolExecutor(self.callers, thread_name_prefix="inference") as pool:
            for pixels in batches:
                running.append(pool.submit(self.engine.predict, pixels))
                if len(running) > self.callers:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()


def load_predictor(
    directory: Path,
    device: Device,
    callers: int,
    runtime: RuntimeChoice = "auto",
    precision: PrecisionChoice = "auto",
    before: Way | None = None,
) -> EmbeddedPredictor:
    """Loads a bundle for `callers` inferences at a time, 0: as many as keep the device busy, each on one core.

    See `prelabel.engine.load_engine` for the other options and the errors.
    """
    engine = load_engine(
        directory, device, threads=1, runtime=runtime, precision=precision, callers=callers, before=before
    )
    return EmbeddedPredictor(engine, callers or parallel_calls(threads=1, gpus=len(engine.gpus)))
