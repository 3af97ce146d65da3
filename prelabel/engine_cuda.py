"""ONNX Runtime on NVIDIA GPUs: a session with a CUDA stream and bound buffers of its own for each caller.

Written to ONNX Runtime's documentation of its CUDA and TensorRT providers and not yet measured on a GPU;
`make gpu-check` does that where there is one.
"""

import contextlib
import ctypes
import io
import logging
import os
import queue
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from prelabel.bundle import Bundle
from prelabel.engine_base import GPU_CALLERS, Raw, Settings, predict_in_buckets
from prelabel.errors import DeviceError, InputError
from prelabel.images import Pixels
from prelabel.precisions import Precision
from prelabel.predictions import PredictionBatch

logger = logging.getLogger(__name__)

PROVIDER = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"

_REGISTER_PORTABLE = 1
"""cudaHostRegisterPortable: page-locked for every GPU, not only for the one that this thread used last."""


@dataclass(frozen=True)
class Buffers:
    """Everything that one batch size needs, made once: CUDA graphs replay fixed addresses."""

    host: Pixels
    """uint8 [b, H, W, C] in page-locked memory, which a GPU reads without a copy by the driver."""
    images: Any
    """The same on the GPU."""
    outputs: tuple[Any, Any]
    """Probabilities float32 [b, K] and realness float32 [b] on the GPU."""
    binding: Any
    """Ties the graph's inputs and outputs to these."""
    run_options: Any
    """Which recorded graph is this batch size's."""


@dataclass(frozen=True)
class Caller:
    """A session, thus a CUDA stream, and its buffers by batch size; one thread uses it at a time."""

    session: Any
    buffers: dict[int, Buffers]

    def run(self, images: Pixels) -> Raw:
        """Classifies uint8 [b, H, W, C] of one of the batch sizes."""
        mine = self.buffers[len(images)]
        np.copyto(mine.host, images)
        mine.images.update_inplace(mine.host)
        self.session.run_with_iobinding(mine.binding, mine.run_options)
        probabilities, realness = (output.numpy() for output in mine.outputs)
        return probabilities, realness


@dataclass(frozen=True)
class CudaEngine:
    """Sessions over a verified bundle, one for each caller, in turn on each GPU."""

    bundle: Bundle
    execution_provider: str
    buckets: tuple[int, ...]
    gpus: tuple[int, ...]
    callers: "queue.Queue[Caller]"
    """Free sessions; the one that has been free for longest comes first, so that the GPUs share the work."""

    def predict(self, images: Pixels) -> PredictionBatch:
        """Classifies uint8 [B, H, W, C], 0..255, B >= 1; waits where all sessions are in use.

        Raises:
            InputError: Another shape or dtype.
        """
        caller = self.callers.get()
        try:
            return predict_in_buckets(images, self.bundle, self.buckets, caller.run)
        finally:
            self.callers.put(caller)


def load(bundle: Bundle, graph: bytes, precision: Precision, settings: Settings) -> CudaEngine:
    """Loads a bundle's graph and runs every batch size once in every session, one after the other.

    Raises:
        DeviceError: CUDA, or TensorRT where it was asked for, does not work here.
        InputError: There are more GPUs than callers.
    """
    wanted = TENSORRT if settings.tensorrt else PROVIDER
    available: Sequence[str] = onnxruntime.get_available_providers()
    if wanted not in available:
        raise DeviceError(
            f"device cuda is not available: this ONNX Runtime has {', '.join(available)}, not {wanted} "
            "(install onnxruntime-gpu for CUDA, or choose --device cpu)"
        )
    if settings.tensorrt:
        # TensorRT has no option for it (onnxruntime issue 28177), and takes TensorFloat-32 for float32.
        os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")
    _find_cuda_libraries()
    callers: queue.Queue[Caller] = queue.Queue()
    try:
        gpus = _choose(settings.gpus, settings.callers)
        for number in range(settings.callers or GPU_CALLERS * len(gpus)):
            gpu = gpus[number % len(gpus)]
            session = _session(graph, bundle, settings, gpu)
            running = session.get_providers()
            # Listed providers are only compiled in; the session alone knows what runs.
            if running[0] != wanted:
                raise DeviceError(
                    f"device cuda does not work here: ONNX Runtime fell back to {running[0]} "
                    "(no driver or CUDA libraries?)"
                )
            buffers = {size: _buffers(session, bundle, size, settings, gpu) for size in settings.buckets}
            caller = Caller(session, buffers)
            for size in reversed(settings.buckets):
                # While a graph is recorded no other thread may use the GPU, so this is no work for `warm_up`.
                caller.run(np.zeros((size, *bundle.input.shape), np.uint8))
            callers.put(caller)
    except (DeviceError, InputError):
        raise
    except Exception as error:  # ONNX Runtime raises its own classes, which all derive from Exception only
        raise DeviceError(f"device cuda does not work here: {' '.join(str(error).split())[:300]}") from error
    name = wanted if precision == "float32" else f"{wanted} {precision}"
    return CudaEngine(bundle, name, settings.buckets, gpus, callers)


def _choose(wanted: str, callers: int) -> tuple[int, ...]:
    """Returns the numbers of the GPUs that are wanted (see `check_gpus`); a session tells whether they are there."""
    gpus = tuple(range(_count_gpus())) if wanted == "all" else tuple(map(int, wanted.split(",")))
    if 0 < callers < len(gpus):
        raise InputError(f"{callers} inferences at a time leave some of {len(gpus)} GPUs idle: one for each wanted")
    return gpus


def _count_gpus() -> int:
    count = ctypes.c_int()
    status = _cuda_runtime().cudaGetDeviceCount(ctypes.byref(count))
    if status or not count.value:
        raise DeviceError(f"device cuda does not work here: CUDA finds {count.value} GPUs (status {status})")
    return count.value


def provider_options(bundle: Bundle, settings: Settings, gpu: int) -> list[tuple[str, dict[str, str]]]:
    """Returns the providers in order of preference with their options, as `InferenceSession` takes them."""
    graphs = "1" if settings.cuda_graphs else "0"
    cuda = {
        "device_id": str(gpu),
        "arena_extend_strategy": "kSameAsRequested",
        # TensorFloat-32 has 10 bits of mantissa: no float32, and nothing that the export's parity check has seen.
        "use_tf32": "0",
        # With TensorRT in front, its part of the graph is recorded by TensorRT.
        "enable_cuda_graph": "0" if settings.tensorrt else graphs,
    }
    if not settings.tensorrt:
        return [(PROVIDER, cuda)]
    shape = "x".join(str(size) for size in bundle.input.shape)
    largest = settings.buckets[-1]
    tensorrt = {
        "device_id": str(gpu),
        "trt_cuda_graph_enable": graphs,
        # One engine for all batch sizes: without a profile, each new size would build another for seconds.
        "trt_profile_min_shapes": f"{bundle.input_name}:1x{shape}",
        "trt_profile_opt_shapes": f"{bundle.input_name}:{largest}x{shape}",
        "trt_profile_max_shapes": f"{bundle.input_name}:{largest}x{shape}",
    }
    return [(TENSORRT, tensorrt), (PROVIDER, cuda)]


def _session(graph: bytes, bundle: Bundle, settings: Settings, gpu: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # What runs on the CPU of such a graph is shapes: one thread does.
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(graph, options, providers=provider_options(bundle, settings, gpu))


def _buffers(session: Any, bundle: Bundle, size: int, settings: Settings, gpu: int) -> Buffers:
    def on_gpu(shape: tuple[int, ...], dtype: type[np.generic]) -> Any:
        return onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, dtype, "cuda", gpu)

    shape = (size, *bundle.input.shape)
    images = on_gpu(shape, np.uint8)
    outputs = on_gpu((size, len(bundle.classes)), np.float32), on_gpu((size,), np.float32)
    binding = session.io_binding()
    binding.bind_ortvalue_input(bundle.input_name, images)
    for name, output in zip((bundle.probabilities_name, bundle.realness_name), outputs, strict=True):
        binding.bind_ortvalue_output(name, output)
    run_options = onnxruntime.RunOptions()
    if settings.cuda_graphs:
        run_options.add_run_config_entry("gpu_graph_id", str(size))
    return Buffers(page_locked(np.zeros(shape, np.uint8)), images, outputs, binding, run_options)


def page_locked(array: NDArray[Any]) -> NDArray[Any]:
    """Keeps an array's memory from being paged out, for as long as the array lives, and returns the array.

    ONNX Runtime has such memory inside but hands out none to Python, hence the call of CUDA's own library.

    Raises:
        OSError: The library is not there.
        DeviceError: CUDA refuses.
    """
    cuda = _cuda_runtime()
    address = ctypes.c_void_p(array.ctypes.data)
    status = cuda.cudaHostRegister(address, ctypes.c_size_t(array.nbytes), ctypes.c_uint(_REGISTER_PORTABLE))
    if status:
        raise DeviceError(f"device cuda does not work here: cudaHostRegister of {array.nbytes} bytes failed ({status})")
    # At the end of the process CUDA may be gone before this, and frees everything anyway.
    weakref.finalize(array, cuda.cudaHostUnregister, address).atexit = False
    return array


def _cuda_runtime() -> Any:
    return ctypes.CDLL(f"libcudart.so.{onnxruntime.cuda_version.split('.')[0]}")


def _find_cuda_libraries() -> None:
    """Loads CUDA and cuDNN where they came as Python packages; what is missing shows when the session starts."""
    onnxruntime.set_default_logger_severity(4)  # a failed start writes a page; our error says the same in a line
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        onnxruntime.preload_dlls()
    logger.debug("preloading CUDA libraries: %s", " ".join(printed.getvalue().split()))
