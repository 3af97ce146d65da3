"""Checks the CUDA path on a machine that has GPUs: answers against the CPU's, images/s, GPU memory.

Every way to run a bundle there takes its turn: float32 and, where the bundle allows it, float16; by the CUDA provider,
with CUDA graphs, and by TensorRT where it is installed; on the first GPU, and on all of them where there are several.
Results go to docs/results/gpu.json.
"""

import itertools
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from prelabel.bundle import load_bundle
from prelabel.engine import Engine, load_engine
from prelabel.engine_cuda import CudaEngine
from prelabel.errors import DeviceError, ParityError, PrelabelError
from prelabel.files import write_text_atomically
from prelabel.images import Pixels
from prelabel.precisions import Precision
from scripts.provenance import provenance

COMMAND = "python -m scripts.gpu_check"


KINDS = ((False, False), (False, True), (True, False))
"""TensorRT or not, CUDA graphs or not."""


@dataclass(frozen=True)
class Options:
    """Check the CUDA path of a bundle on this machine's GPUs."""

    model: Path = Path("runs/demo/bundle")
    """The bundle."""
    images: int = 5000
    """Random images that are compared with the CPU; real ones would say the same of the arithmetic."""
    batches: tuple[int, ...] = (1, 32, 256)
    """Images of a timed batch."""
    seconds: float = 3.0
    """How long each batch size is timed."""
    results: Path = Path("docs/results/gpu.json")
    """Where results go."""


@dataclass(frozen=True)
class Way:
    """One way to run the bundle on the GPU."""

    precision: Precision
    tensorrt: bool
    cuda_graphs: bool
    gpus: str


def main() -> int:
    """Measures and writes the results; returns the exit status."""
    options = tyro.cli(Options, prog=COMMAND)
    try:
        result = check(options)
    except PrelabelError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    options.results.parent.mkdir(parents=True, exist_ok=True)
    write_text_atomically(options.results, json.dumps(result, indent=1) + "\n")
    print(options.results.read_text(), end="")
    return 0


def check(options: Options) -> dict[str, Any]:
    """Returns the results of every way that works here.

    Raises:
        DeviceError: There is no GPU on which CUDA works.
        ParityError: float32 on the GPU differs from float32 on the CPU by more than the bundle's tolerance.
    """
    bundle = load_bundle(options.model)
    images = np.random.default_rng(0).integers(0, 256, (options.images, *bundle.input.shape), np.uint8)
    free_bytes = used_gpu_bytes()
    reference = load_engine(options.model, "cpu", runtime="onnxruntime", precision="float32")
    ways: list[dict[str, Any]] = []
    names = gpu_names()
    precisions: list[Precision] = ["float32"]
    if bundle.allows("float16", "onnxruntime"):
        precisions.append("float16")
    for precision in precisions:
        kinds = itertools.product(("0", "all") if len(names) > 1 else ("0",), KINDS)
        for gpus, (tensorrt, graphs) in kinds:
            way = Way(precision, tensorrt, graphs, gpus)
            try:
                ways.append(measure(way, reference, images, options, free_bytes))
            except DeviceError as error:
                if not tensorrt:  # TensorRT need not be there; CUDA has to be
                    raise
                ways.append({"tensorrt": True, "precision": precision, "error": str(error)})
    return {**provenance(COMMAND), "gpus": names, "model_id": bundle.model_id, "ways": ways}


def measure(way: Way, reference: Engine, images: Pixels, options: Options, free_bytes: int) -> dict[str, Any]:
    """Returns the figures of one way.

    Raises:
        DeviceError: It does not work here.
        ParityError: See `check`.
    """
    engine = load_engine(
        options.model,
        "cuda",
        precision=way.precision,
        tensorrt=way.tensorrt,
        cuda_graphs=way.cuda_graphs,
        max_batch_size=max(options.batches),
        gpus=way.gpus,
    )
    assert isinstance(engine, CudaEngine)
    callers = engine.callers.qsize()
    expected = reference.predict(images)
    # One after the other, each is answered by the next session: every session of every GPU is compared.
    answers = [engine.predict(images) for _ in range(callers)]
    differences = np.stack([np.abs(expected.probabilities - got.probabilities) for got in answers])
    tolerance = engine.bundle.parity.tolerance
    if way.precision == "float32" and differences.max() > tolerance:
        raise ParityError(
            f"{engine.execution_provider} differs from the CPU by {differences.max():.2e} (allowed {tolerance:.0e}) "
            f"with tensorrt={way.tensorrt}, cuda_graphs={way.cuda_graphs}"
        )
    rates = {str(size): throughput(engine, images[:size], callers, options.seconds) for size in options.batches}
    return {
        "execution_provider": engine.execution_provider,
        "precision": way.precision,
        "tensorrt": way.tensorrt,
        "cuda_graphs": way.cuda_graphs,
        "io_binding": True,  # the only way that the engine has
        "gpus": engine.gpus,
        "callers": callers,
        "images": len(images),
        "max_difference": float(differences.max()),
        "agreement": min(float((expected.label_index == got.label_index).mean()) for got in answers),
        "images_per_s": rates,
        "gpu_memory_bytes": used_gpu_bytes() - free_bytes,
    }


def throughput(engine: Engine, batch: Pixels, callers: int, seconds: float) -> float:
    """Returns images/s of `callers` threads that ask for a batch again and again."""
    started_s = time.perf_counter()

    def ask(_: int) -> int:
        done = len(engine.predict(batch))
        while time.perf_counter() - started_s < seconds:
            done += len(engine.predict(batch))
        return done

    with ThreadPoolExecutor(callers) as pool:
        done = sum(pool.map(ask, range(callers)))
    return done / (time.perf_counter() - started_s)


def used_gpu_bytes() -> int:
    """Returns the used memory of all GPUs, that of other processes included."""
    return sum(map(int, _nvidia_smi("memory.used"))) << 20


def gpu_names() -> list[str]:
    """Returns each GPU's name and driver's version."""
    return _nvidia_smi("name,driver_version")


def _nvidia_smi(fields: str) -> list[str]:
    """Returns a line for each GPU."""
    command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError) as error:
        raise DeviceError(
            f"there is no NVIDIA GPU here that nvidia-smi knows of ({error}): run this on a machine with one"
        ) from error


if __name__ == "__main__":
    sys.exit(main())
