"""The server's options."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from prelabel.engine import Device, PrecisionChoice, RuntimeChoice, check_gpus
from prelabel.errors import InputError
from prelabel.images import MAX_IMAGE_PIXELS
from prelabel.tls import is_loopback


@dataclass(frozen=True)
class Config:
    """Serves model bundles over gRPC until SIGTERM or SIGINT; requests in flight are still answered."""

    model: Path
    """Directory of a model bundle, or of a folder of bundles, one a version."""
    versions: str = "latest"
    """Which versions of such a folder are served: `latest`, `all`, or names separated by commas. Requests that name
    none get the latest of them. Numbers are in order of size, other names in alphabetical order before them."""
    reload_every_s: float = 2.0
    """How often the directory is looked at for a new model; 0: only when AdminService/Reload is called."""
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
    gpus: str = "0"
    """GPUs that run the model where CUDA does: numbers separated by commas, or `all`. The first alone, because several
    have not been measured yet."""
    tensorrt: bool = False
    """On a GPU: TensorRT builds what it can of the graph. Off, since that takes seconds to minutes at each start."""
    cuda_graphs: bool = False
    """On a GPU: record each batch size once and replay it. Off, because it has not been measured yet."""
    max_batch_size: int = 256
    """Most images of one inference. Small nets reach a CPU core's full rate at 32, a GPU's near 256."""
    preferred_batch_size: int = 0
    """Images for which a free instance waits no longer; 0: 32 on the CPU, where larger batches are hardly faster, and
    `max_batch_size` on a GPU."""
    max_queue_delay_ms: float = 2.0
    """How long a request waits for company while an instance is free; about the cost of one network round trip. One
    that comes alone, and did so lately, does not wait."""
    max_queue_images: int = 65536
    """Most unanswered images: a few seconds of work for a small net on a CPU. More are refused: try again later."""
    max_queue_mib: int = 512
    """Most unanswered pixels in MiB: bounds the server's memory whatever the size of the images. Like the limit of
    images for each version that is loaded."""
    instances: int = 0
    """Inferences at the same time, each on one CPU core; 0: one for each core, or 2 on each GPU (copy and compute). Of
    several processes: in each of them, and 0 shares the cores out."""
    processes: int = 1
    """Worker processes that share the port (Linux), each with models, queue and limits of its own. More than one pays
    where many clients send single images: one process answers some thousand of them a second, whatever the cores."""
    drain_timeout_s: float = 25.0
    """How long a stopping server goes on answering; below the 30 s after which Kubernetes kills a container."""
    tls_certificate: Path | None = None
    """PEM file with the server's certificate, its chain behind it; read anew when it changes. None: no encryption."""
    tls_key: Path | None = None
    """PEM file with the private key of --tls-certificate; must not be readable by every user."""
    tls_client_ca: Path | None = None
    """PEM file with the authorities of the clients' certificates: only clients that have one connect (mutual TLS)."""
    token_file: Path | None = None
    """Bearer tokens, one `token`, `name:token` or `name:token:admin` a line; or PRELABEL_TOKENS in the environment."""
    rate_limit_images_per_s: float = float("inf")
    """Images per second that one token, or one address where there are no tokens, may send in the long run."""
    rate_limit_burst_images: int = 4096
    """Images that a caller may send at once after a pause: one request of the largest size."""
    max_message_mib: int = 64
    """Largest request and answer in MiB: a few hundred large images. gRPC's own limit of 4 MiB is too small. What is on
    its way is in memory and in no limit: up to 256 such requests for each connection of a caller who means harm."""
    max_image_pixels: int = MAX_IMAGE_PIXELS
    """Image files with more pixels are refused by their header: a file of 100 KB can hold gigabytes. One takes up to 8
    bytes a pixel while it is decoded (512 MB), which no limit of the queue counts, in as many threads as there are
    cores (several processes share them out), for each version that is loaded."""
    max_connections: int = 4096
    """Most connections; each takes a file descriptor and some memory. The server raises its own limit of open files as
    far as the system lets it (`ulimit -Hn`), and takes fewer connections where that is not enough."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least level of the log lines (JSON, on stderr)."""
    config: Path | None = None
    """TOML file that sets any of these options (`max_batch_size = 64`). Environment variables such as
    PRELABEL_OPTION_MAX_BATCH_SIZE go before it, flags before both."""
    print_config: bool = False
    """Print the options as such a file, each with where it comes from, and end."""
    metrics_port: int | None = None
    """Port for Prometheus (HTTP); 0 takes a free one, which the log names. None: no metrics, no port opened unasked."""
    metrics_host: str = "127.0.0.1"
    """Address of the metrics port, which asks nobody who they are."""

    def __post_init__(self) -> None:
        if self.metrics_port is not None and not 0 <= self.metrics_port <= 65535:
            raise InputError(f"metrics_port is {self.metrics_port}: 0 to 65535 wanted, or none for no metrics")
        if not 0 <= self.port <= 65535:
            raise InputError(f"port is {self.port}: 0 to 65535 wanted")
        if not 0 <= self.reload_every_s < float("inf"):
            raise InputError(f"reload_every_s is {self.reload_every_s}: 0 (never) or more seconds wanted")
        if self.preferred_batch_size < 0:
            raise InputError(f"preferred_batch_size is {self.preferred_batch_size}: 0 (automatic) or more wanted")
        if self.instances < 0:
            raise InputError(f"instances is {self.instances}: 0 (automatic) or more wanted")
        if self.processes < 1:
            raise InputError(f"processes is {self.processes}: at least 1 wanted")
        check_gpus(self.gpus)
        if not 0 <= self.drain_timeout_s < float("inf"):
            raise InputError(f"drain_timeout_s is {self.drain_timeout_s}: 0 or more seconds wanted")
        if not 2 <= self.max_message_mib <= 1024:
            raise InputError(f"max_message_mib is {self.max_message_mib}: 2 to 1024 wanted (protobuf ends at 2 GiB)")
        if not 1 <= self.max_image_pixels <= MAX_IMAGE_PIXELS:
            raise InputError(f"max_image_pixels is {self.max_image_pixels}: 1 to {MAX_IMAGE_PIXELS} wanted")
        if self.max_connections < 1:
            raise InputError(f"max_connections is {self.max_connections}: at least 1 wanted")

    @property
    def listens_to_this_machine_only(self) -> bool:
        """Whether no other machine can connect."""
        return is_loopback(self.host)
