"""From a bundle to an inference session: ONNX Runtime on a GPU or on the CPU."""

import contextlib
import io
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from prelabel.bundle import MODEL_FILE, Bundle, load_bundle
from prelabel.errors import DeviceError, InputError
from prelabel.images import Pixels
from prelabel.predictions import PredictionBatch, from_model

logger = logging.getLogger(__name__)

Device = Literal["auto", "cuda", "cpu"]
PROVIDERS = {"cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}


class Engine(Protocol):
    """What serving and bulk work need of a loaded model; safe to call from several threads."""

    @property
    def bundle(self) -> Bundle:
        """The bundle that was loaded."""

    @property
    def execution_provider(self) -> str:
        """What really runs the model."""

    def predict(self, images: Pixels) -> PredictionBatch:
        """Classifies uint8 [B, H, W, C], 0..255, B >= 1, of exactly the model's H, W and C."""


@dataclass(frozen=True)
class OnnxEngine:
    """An ONNX Runtime session over a verified bundle."""

    bundle: Bundle
    session: Any
    execution_provider: str

    def predict(self, images: Pixels) -> PredictionBatch:
        """Classifies uint8 [B, H, W, C], 0..255, B >= 1.

        Raises:
            InputError: Another shape or dtype.
        """
        check_images(images, self.bundle)
        names = [self.bundle.probabilities_name, self.bundle.realness_name]
        probabilities, realness = self.session.run(names, {self.bundle.input_name: images})
        return from_model(probabilities, realness, self.bundle.model_id)


def check_images(images: NDArray[Any], bundle: Bundle) -> None:
    """Raises `InputError` unless `images` is uint8 [B, H, W, C], B >= 1, of the model's H, W and C."""
    if images.dtype != np.uint8:
        raise InputError(f"images are {images.dtype}, but the model takes uint8 (0..255): do not scale them")
    if images.ndim != 4 or images.shape[0] < 1 or images.shape[1:] != bundle.input.shape:
        wanted = ", ".join(str(size) for size in bundle.input.shape)
        raise InputError(f"images have shape {list(images.shape)}, but the model takes [B >= 1, {wanted}]")


def load_engine(directory: Path, device: Device = "auto", threads: int = 0) -> OnnxEngine:
    """Verifies a bundle and loads its model.

    Args:
        directory: The bundle.
        device: `cuda` and `cpu` are commands, `auto` takes CUDA where it works and says why where it does not.
        threads: Threads of one inference; 0 lets ONNX Runtime take all cores.

    Raises:
        BundleError: See `load_bundle`.
        InputError: `threads` is negative.
        DeviceError: `cuda` was asked for and does not work here.
    """
    if threads < 0:
        raise InputError(f"threads is {threads}: 0 (all cores) or more wanted")
    bundle = load_bundle(directory)
    model = (directory / MODEL_FILE).read_bytes()
    if device == "cpu":
        return _load(bundle, model, "cpu", threads)
    try:
        return _load(bundle, model, "cuda", threads)
    except DeviceError as error:
        if device == "cuda":
            raise
        logger.info("device auto: using the CPU, because %s", error)
        return _load(bundle, model, "cpu", threads)


def _load(bundle: Bundle, model: bytes, device: Literal["cuda", "cpu"], threads: int) -> OnnxEngine:
    wanted = PROVIDERS[device]
    available: Sequence[str] = onnxruntime.get_available_providers()
    if wanted not in available:
        raise DeviceError(
            f"device {device} is not available: this ONNX Runtime has {', '.join(available)} "
            "(install onnxruntime-gpu for CUDA, or choose --device cpu)"
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    # A spinning worker burns the core that decoding and the network need.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if device == "cuda":
        _find_cuda_libraries()
    try:
        session = onnxruntime.InferenceSession(model, options, providers=[wanted])
        running = session.get_providers()
        # Listed providers are only compiled in; the session alone knows what runs. Warm-up finds missing libraries.
        if running[0] == wanted:
            session.run(None, {bundle.input_name: np.zeros((1, *bundle.input.shape), np.uint8)})
            return OnnxEngine(bundle, session, wanted)
    except Exception as error:  # ONNX Runtime raises its own classes, which all derive from Exception only
        raise DeviceError(f"device {device} does not work here: {' '.join(str(error).split())[:300]}") from error
    raise DeviceError(
        f"device {device} does not work here: ONNX Runtime fell back to {running[0]} (no driver or CUDA libraries?)"
    )


def _find_cuda_libraries() -> None:
    """Loads CUDA and cuDNN where they came as Python packages; what is missing shows when the session starts."""
    onnxruntime.set_default_logger_severity(4)  # a failed start writes a page; our error says the same in a line
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        onnxruntime.preload_dlls()
    logger.debug("preloading CUDA libraries: %s", " ".join(printed.getvalue().split()))
