"""The ways to run a model, and which of those that work here is the fastest."""

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from prelabel.bundle import Bundle
from prelabel.engine_base import Engine, Settings, on_gpu
from prelabel.errors import DeviceError, InputError
from prelabel.precisions import Precision, Runtime

logger = logging.getLogger(__name__)

Device = Literal["auto", "cuda", "cpu"]
RuntimeChoice = Literal["auto", "onnxruntime", "openvino"]
PrecisionChoice = Literal["auto", "float32", "bfloat16", "int8", "float16"]
Measure = Callable[[Engine], float]
"""Returns how many images/s an engine does."""

TIMED_IMAGES = 128
"""Images of one timed inference: bulk work, which is where speed counts, fills batches."""
TIMED_BYTES = 1 << 20
"""Fewer of large images."""
TIMED_RUNS = 5
TIMED_S = 0.1
"""A slow model is timed fewer times: a server should be ready soon."""
WORTH_IT = 1.1
"""A reduced precision has to be so many times as fast as float32: for less nobody gives digits away."""


@dataclass(frozen=True)
class Way:
    """One way to run a model."""

    device: Literal["cuda", "cpu"]
    runtime: Runtime
    precision: Precision

    def __str__(self) -> str:
        return f"{self.precision} by {self.runtime} on {self.device}"


WAYS = (
    Way("cuda", "onnxruntime", "float32"),
    Way("cuda", "onnxruntime", "float16"),
    Way("cpu", "onnxruntime", "float32"),
    Way("cpu", "openvino", "float32"),
    Way("cpu", "openvino", "bfloat16"),
    Way("cpu", "onnxruntime", "int8"),
    Way("cpu", "openvino", "int8"),
)
"""All there are. ONNX Runtime has no bfloat16 on CPUs, and float16 there is slower than float32."""


def allowed_ways(bundle: Bundle, device: Device, runtime: RuntimeChoice, precision: PrecisionChoice) -> tuple[Way, ...]:
    """Returns the ways that were asked for and that the bundle allows.

    Raises:
        InputError: There is none.
    """
    ways = [
        way
        for way in WAYS
        if device in ("auto", way.device) and runtime in ("auto", way.runtime) and precision in ("auto", way.precision)
    ]
    if not ways:
        raise InputError(
            f"nothing runs a model with --device {device} --runtime {runtime} --precision {precision}: "
            f"there is {', '.join(map(str, WAYS))}"
        )
    allowed = tuple(way for way in ways if bundle.allows(way.precision, way.runtime))
    if not allowed:
        tried = [figures for figures in bundle.precisions if any(figures.precision == way.precision for way in ways)]
        reasons = "; ".join(f"{figures.runtime}: {figures.reason}" for figures in tried)
        raise InputError(
            f"the bundle does not allow --precision {precision} ({reasons or 'it was not tried at export'}): "
            "choose --precision float32 or auto, or export the model again"
        )
    return allowed


def load_fastest(
    ways: Sequence[Way], bundle: Bundle, graphs: Mapping[str, bytes], settings: Settings, measure: Measure
) -> Engine:
    """Loads what works of `ways`, times it where there is a choice, and returns the fastest; says which and why.

    Args:
        ways: What to try.
        bundle: The bundle.
        graphs: File name -> bytes of the graphs that `ways` run.
        settings: See there.
        measure: Decides what is fastest.

    Raises:
        DeviceError: Nothing works here.
    """
    engines: dict[Way, Engine] = {}
    failures: dict[str, None] = {}
    for way in ways:
        try:
            engines[way] = load(way, bundle, graphs[bundle.file_of(way.precision)], settings)
        except DeviceError as error:
            failures[str(error)] = None
            logger.debug("%s does not work here: %s", way, error)
    if not engines:
        raise DeviceError("; ".join(failures))
    if len(engines) == 1:
        return next(iter(engines.values()))
    rates = {way: measure(engine) for way, engine in engines.items()}
    best = pick(rates)
    figures = ", ".join(f"{engines[way].execution_provider} {rate:,.0f}" for way, rate in rates.items())
    logger.info("engine: %s, by images/s of one core: %s", engines[best].execution_provider, figures)
    return engines[best]


def pick(rates: Mapping[Way, float]) -> Way:
    """Returns the fastest way, or the fastest in float32 where no other one is `WORTH_IT`."""
    best = max(rates, key=lambda way: rates[way])
    exact = max((way for way in rates if way.precision == "float32"), key=lambda way: rates[way], default=best)
    return best if rates[best] >= WORTH_IT * rates[exact] else exact


def load(way: Way, bundle: Bundle, graph: bytes, settings: Settings) -> Engine:
    """Loads a bundle's graph in one way.

    Raises:
        DeviceError: It does not work here.
    """
    # Imported here: each runtime takes a tenth of a second, and is an extra that may not be there.
    try:
        if way.device == "cuda":
            from prelabel import engine_cuda

            return engine_cuda.load(bundle, graph, way.precision, settings)
        if way.runtime == "openvino":
            from prelabel import engine_openvino

            return engine_openvino.load(bundle, graph, way.precision, settings)
        from prelabel import engine_onnxruntime

        return engine_onnxruntime.load(bundle, graph, way.precision, settings)
    except ImportError as error:
        extra = {"cuda": "gpu", "onnxruntime": "cpu", "openvino": "openvino"}
        wanted = extra[way.device if way.device == "cuda" else way.runtime]
        raise DeviceError(
            f"runtime {way.runtime} is not installed: pip install 'prelabel[{wanted}]' ({' '.join(str(error).split())})"
        ) from error


def way_of(engine: Engine) -> Way:
    """Returns the way in which an engine that was loaded by one runs its model."""
    way = way_named(engine.execution_provider)
    assert way is not None, engine.execution_provider
    return way


def way_named(execution_provider: str) -> Way | None:
    """Returns the way that an engine of this process or a server names, such as `OpenVINO bfloat16`.

    Returns:
        None where it is none of `WAYS`: TensorRT, for example.
    """
    name, _, precision = execution_provider.partition(" ")
    by_name: dict[str, tuple[str, str]] = {
        "CUDAExecutionProvider": ("cuda", "onnxruntime"),
        "CPUExecutionProvider": ("cpu", "onnxruntime"),
        "OpenVINO": ("cpu", "openvino"),
    }
    wanted = (*by_name.get(name, ("", "")), precision or "float32")
    return next((way for way in WAYS if (way.device, way.runtime, way.precision) == wanted), None)


def images_per_s(engine: Engine) -> float:
    """Times a few batches of noise; returns how many images/s one caller does, on the CPU those of one busy core.

    On the CPU that is time of the processor and not of the clock: what else runs on the machine takes only the latter.
    """
    clock = time.perf_counter if on_gpu(engine) else time.process_time
    shape = engine.bundle.input.shape
    count = max(1, min(TIMED_IMAGES, TIMED_BYTES // math.prod(shape)))
    images = np.random.default_rng(0).integers(0, 256, (count, *shape), np.uint8)
    engine.predict(images)  # the first inference also allocates
    best_s, stop_s = math.inf, time.perf_counter() + TIMED_S
    for _ in range(TIMED_RUNS):
        before_s = clock()
        engine.predict(images)
        best_s = min(best_s, clock() - before_s)
        if time.perf_counter() > stop_s:
            break
    return count / max(best_s, 1e-9)
