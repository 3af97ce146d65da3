"""From a bundle to an inference engine that is ready: ONNX Runtime on a GPU or the CPU, or OpenVINO on the CPU."""

import logging
from pathlib import Path

from prelabel.bundle import Bundle, read_bundle
from prelabel.engine_base import (
    GPU_CALLERS,
    Engine,
    Settings,
    bucket_sizes,
    check_gpus,
    check_images,
    on_gpu,
    usable_cores,
    warm_up,
)
from prelabel.engine_choice import (
    Device,
    Measure,
    PrecisionChoice,
    RuntimeChoice,
    Way,
    allowed_ways,
    images_per_s,
    load_fastest,
)
from prelabel.errors import DeviceError, InputError

__all__ = [
    "Device",
    "Engine",
    "PrecisionChoice",
    "RuntimeChoice",
    "check_gpus",
    "check_images",
    "load_engine",
    "on_gpu",
    "parallel_calls",
    "usable_cores",
]

logger = logging.getLogger(__name__)


def load_engine(
    directory: Path,
    device: Device = "auto",
    threads: int = 0,
    *,
    runtime: RuntimeChoice = "auto",
    precision: PrecisionChoice = "auto",
    callers: int = 0,
    processes: int = 1,
    max_batch_size: int = 256,
    gpus: str = "0",
    tensorrt: bool = False,
    cuda_graphs: bool = False,
    before: Way | None = None,
    measure: Measure = images_per_s,
) -> Engine:
    """Verifies a bundle, loads its model, and runs every batch size once.

    Args:
        directory: The bundle.
        device: `cuda` and `cpu` are commands, `auto` takes CUDA where it works and says why where it does not.
        threads: Threads of one inference on the CPU; 0 takes all cores.
        runtime: `auto` takes what is fastest here.
        precision: `auto` takes what is fastest here among those that the bundle allows.
        callers: Threads that will call `predict` at the same time; 0: see `parallel_calls`.
        processes: How many such processes share the cores.
        max_batch_size: Larger batches are cut.
        gpus: On CUDA: numbers separated by commas, or `all`. Callers are spread over them.
        tensorrt: On CUDA: TensorRT builds the parts of the graph that it can.
        cuda_graphs: On CUDA: each batch size is recorded once and replayed.
        before: What `auto` takes instead of the fastest, where it works and is allowed: how the work was begun.
        measure: Decides what is fastest.

    Raises:
        BundleError: See `load_bundle`.
        InputError: A number is too small, nothing runs such a combination, or the bundle does not allow the precision.
        DeviceError: What was asked for does not work here.
    """
    check_gpus(gpus)
    for name, value in (("threads", threads), ("callers", callers)):
        if value < 0:
            raise InputError(f"{name} is {value}: 0 (automatic) or more wanted")
    if max_batch_size < 1:
        raise InputError(f"max_batch_size is {max_batch_size}: at least 1 wanted")

    def graphs_of(bundle: Bundle) -> set[str]:
        return {bundle.file_of(way.precision) for way in allowed_ways(bundle, device, runtime, precision)}

    bundle, graphs = read_bundle(directory, graphs_of)
    ways = allowed_ways(bundle, device, runtime, precision)
    buckets = bucket_sizes(bundle, max_batch_size)
    kinds = dict.fromkeys(way.device for way in ways)
    tries = [([way for way in ways if way.device == kind], f"device {device}: using the CPU") for kind in kinds]
    if before in ways and len(ways) > 1:
        tries.insert(0, ([before], f"not going on in {before}"))
    for some, otherwise in tries:
        calls = callers if some[0].device == "cuda" else callers or parallel_calls(threads, processes=processes)
        settings = Settings(threads, calls, buckets, gpus, tensorrt, cuda_graphs)
        try:
            engine = load_fastest(some, bundle, graphs, settings, measure)
        except DeviceError as error:
            if some is tries[-1][0]:
                raise
            logger.info("%s, because %s", otherwise, error)
        else:
            if some == [before]:
                logger.info("engine: %s, as before", engine.execution_provider)
            break
    del graphs  # the runtimes have what they need of them, and warming up takes memory of its own
    warm_up(engine, buckets, callers or parallel_calls(threads, gpus=len(engine.gpus), processes=processes))
    return engine


def parallel_calls(threads: int, *, gpus: int = 0, processes: int = 1) -> int:
    """Returns how many inferences keep so many GPUs busy, or this process's share of the cores.

    Args:
        threads: Of one inference on the CPU; 0: all cores.
        gpus: GPUs that run the model; 0: the CPU does.
        processes: How many such processes share the cores.
    """
    if gpus:
        return GPU_CALLERS * gpus
    return max(1, usable_cores() // (threads * processes)) if threads else 1
