"""The server's options."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from prelabel.engine import Device, PrecisionChoice, RuntimeChoice
from prelabel.errors import InputError


@dataclass(frozen=True)
class Config:
    """Serves a model bundle over gRPC until SIGTERM or SIGINT; requests in flight are still answered."""

    model: Path
    """Directory of the model bundle."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 or [::] for every network interface."""
    port: int = 50051
    """Port to listen on; 0 takes a free one (see --port-file)."""
    port_file: Path | None = None
    """File into which the port is written once the server answers; it is removed when the server stops."""
    device: Device = "auto"
    """What runs the model: cuda and cpu are commands, auto takes CUDA where it works."""
    runtime: RuntimeChoice = "auto"
    """What computes on it: auto times both at the start (a fraction of a second) and takes the faster one."""
    precision: PrecisionChoice = "auto"
    """Numbers inside the model: auto takes the fastest of those that the bundle allows; float32 is always allowed."""
    tensorrt: bool = False
    """On a GPU: TensorRT builds what it can of the graph. Off, since that takes seconds to minutes at each start."""
    cuda_graphs: bool = False
    """On a GPU: record each batch size once and replay it. Off, because it has not been measured yet."""
    max_batch_size: int = 256
    """Most images of one inference. Small nets reach a CPU core's full rate at 32, a GPU's near 256."""
    max_queue_delay_ms: float = 2.0
    """How long a request waits for company while nothing else runs; about the cost of one network round trip."""
    max_queue_images: int = 65536
    """Most unanswered images: a few seconds of work for a small net on a CPU. More are refused: try again later."""
    max_queue_mib: int = 512
    """Most unanswered pixels in MiB: bounds the server's memory whatever the size of the images."""
    instances: int = 0
    """Inferences at the same time, each on one CPU core; 0: one for each core, or 2 on a GPU (copy and compute)."""
    drain_timeout_s: float = 25.0
    """How long a stopping server goes on answering; below the 30 s after which Kubernetes kills a container."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least level of the log lines (JSON, on stderr)."""

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise InputError(f"port is {self.port}: 0 to 65535 wanted")
        if self.instances < 0:
            raise InputError(f"instances is {self.instances}: 0 (automatic) or more wanted")
        if not 0 <= self.drain_timeout_s < float("inf"):
            raise InputError(f"drain_timeout_s is {self.drain_timeout_s}: 0 or more seconds wanted")
