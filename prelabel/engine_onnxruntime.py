"""ONNX Runtime on the CPU: one session whose runs are parallel, each on the threads that it is given."""

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime

from prelabel.bundle import Bundle
from prelabel.engine_base import Raw, Settings, predict_in_buckets
from prelabel.errors import DeviceError
from prelabel.images import Pixels
from prelabel.precisions import Precision
from prelabel.predictions import PredictionBatch

PROVIDER = "CPUExecutionProvider"

_SAME_AS_REQUESTED = 1
"""Arena strategy kSameAsRequested; the other one doubles the arena whenever it is too small."""


@dataclass(frozen=True)
class OnnxEngine:
    """A session over a verified bundle; every caller's run uses the caller's own thread."""

    bundle: Bundle
    session: Any
    execution_provider: str
    buckets: tuple[int, ...]
    gpus: tuple[int, ...] = ()

    def predict(self, images: Pixels) -> PredictionBatch:
        """Classifies uint8 [B, H, W, C], 0..255, B >= 1.

        Raises:
            InputError: Another shape or dtype.
        """
        return predict_in_buckets(images, self.bundle, self.buckets, self._run)

    def _run(self, images: Pixels) -> Raw:
        names = [self.bundle.probabilities_name, self.bundle.realness_name]
        probabilities, realness = self.session.run(names, {self.bundle.input_name: images})
        return probabilities, realness


def load(bundle: Bundle, graph: bytes, precision: Precision, settings: Settings) -> OnnxEngine:
    """Loads a bundle's graph.

    Raises:
        DeviceError: ONNX Runtime cannot run the graph.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = settings.threads
    options.log_severity_level = 3
    # A spinning worker burns the core that decoding and the network need.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    _register_arena()
    options.add_session_config_entry("session.use_env_allocators", "1")
    try:
        session = onnxruntime.InferenceSession(graph, options, providers=[PROVIDER])
        session.run(None, {bundle.input_name: np.zeros((1, *bundle.input.shape), np.uint8)})
    except Exception as error:  # ONNX Runtime raises its own classes, which all derive from Exception only
        raise DeviceError(f"device cpu does not work here: {' '.join(str(error).split())[:300]}") from error
    name = PROVIDER if precision == "float32" else f"{PROVIDER} {precision}"
    return OnnxEngine(bundle, session, name, settings.buckets)


@functools.cache
def _register_arena() -> None:
    """Makes the one arena that all sessions of this process share; ONNX Runtime allows it once."""
    memory = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    arena = onnxruntime.OrtArenaCfg({"arena_extend_strategy": _SAME_AS_REQUESTED})
    onnxruntime.create_and_register_allocator(memory, arena)
