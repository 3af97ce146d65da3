"""OpenVINO on the CPU: one compiled model, a stream and an infer request for each caller."""

import functools
import queue
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
import openvino

from prelabel.bundle import Bundle
from prelabel.engine_base import Raw, Settings, predict_in_buckets
from prelabel.errors import DeviceError
from prelabel.images import Pixels
from prelabel.precisions import Precision
from prelabel.predictions import PredictionBatch

# An int8 graph says itself where it is quantised; the rest of it runs in float32, as the export's gate judged it.
HINTS: dict[Precision, str] = {"float32": "f32", "bfloat16": "bf16", "int8": "f32"}
"""Precision -> OpenVINO's INFERENCE_PRECISION_HINT. Without one it takes bfloat16 by itself where the CPU has it."""

_FIRST_USE = threading.Lock()
"""The bindings of OpenVINO 2026.4 prepare themselves at the first inference of a process, once for arrays that can be
written and once for others. Two threads that come first at the same time wait for each other for ever: one has Python's
lock, the other one that of the preparation.
"""


@dataclass(frozen=True)
class OpenVinoEngine:
    """A compiled model over a verified bundle; a caller has an infer request to itself while it runs."""

    bundle: Bundle
    execution_provider: str
    buckets: tuple[int, ...]
    requests: "queue.LifoQueue[Any]"
    """Free infer requests; the one used last comes first, its memory is in the cache."""
    gpus: tuple[int, ...] = ()

    def predict(self, images: Pixels) -> PredictionBatch:
        """Classifies uint8 [B, H, W, C], 0..255, B >= 1; waits where all requests are in use.

        Raises:
            InputError: Another shape or dtype.
        """
        request = self.requests.get()
        try:
            return predict_in_buckets(images, self.bundle, self.buckets, functools.partial(self._run, request))
        finally:
            self.requests.put(request)

    def _run(self, request: Any, images: Pixels) -> Raw:
        # The pixels are read where they lie; the answers are copied, since the request's memory is used again.
        answers = request.infer({self.bundle.input_name: images}, share_inputs=True, share_outputs=False)
        return answers[self.bundle.probabilities_name], answers[self.bundle.realness_name]


def load(bundle: Bundle, graph: bytes, precision: Precision, settings: Settings) -> OpenVinoEngine:
    """Compiles a bundle's graph and runs it once.

    Raises:
        DeviceError: This CPU does not have the precision, or OpenVINO cannot run the graph.
    """
    core = _core()
    if precision == "bfloat16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise DeviceError("precision bfloat16: this CPU has none; choose --precision float32")
    hint = HINTS[precision]
    options = {
        "INFERENCE_PRECISION_HINT": hint,
        "NUM_STREAMS": settings.callers,
        "INFERENCE_NUM_THREADS": settings.callers * settings.threads,  # 0: all cores
        "ENABLE_HYPER_THREADING": True,  # one stream for each core that the system counts
        # Pinned threads of two processes would share the first cores while the others idle.
        "ENABLE_CPU_PINNING": False,
    }
    try:
        compiled = core.compile_model(core.read_model(graph), "CPU", options)
        running = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
        requests = [compiled.create_infer_request() for _ in range(settings.callers)]
    except RuntimeError as error:
        raise DeviceError(f"runtime openvino does not work here: {' '.join(str(error).split())[:300]}") from error
    if running != hint:
        raise DeviceError(f"precision {precision}: OpenVINO runs {running} here; choose --precision float32")
    engine = OpenVinoEngine(bundle, f"OpenVINO {precision}", settings.buckets, queue.LifoQueue())
    for request in requests:
        engine.requests.put(request)
    image = np.zeros((1, *bundle.input.shape), np.uint8)
    read_only = image.copy()
    read_only.setflags(write=False)
    with _FIRST_USE:
        engine.predict(image)
        engine.predict(read_only)
    return engine


@functools.cache
def _core() -> Any:
    return openvino.Core()
