"""Each GPU's memory and load as NVIDIA's management library tells them, on machines that have it."""

import contextlib
from collections.abc import Iterable
from typing import Any

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


def gpu_metrics() -> Collector | None:
    """Returns a collector of the machine's GPUs; None without nvidia-ml-py, a driver or a GPU."""
    try:
        import pynvml
    except ModuleNotFoundError:
        return None
    try:
        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError:
        return None
    return _Gpus(pynvml, handles) if handles else None


class _Gpus(Collector):
    def __init__(self, nvml: Any, handles: list[Any]) -> None:
        self._nvml = nvml
        self._gpus = {str(i): handle for i, handle in enumerate(handles)}

    def collect(self) -> Iterable[Metric]:
        used = GaugeMetricFamily("prelabel_gpu_memory_used_bytes", "In use by all programs.", labels=["gpu"])
        capacity = GaugeMetricFamily("prelabel_gpu_memory_capacity_bytes", "What the GPU has.", labels=["gpu"])
        busy = GaugeMetricFamily("prelabel_gpu_utilization_ratio", "Share of the time in use.", labels=["gpu"])
        for gpu, handle in self._gpus.items():
            # A GPU that fell off the bus is a gap in its series; the other metrics are still wanted.
            with contextlib.suppress(self._nvml.NVMLError):
                memory = self._nvml.nvmlDeviceGetMemoryInfo(handle)
                used.add_metric([gpu], memory.used)
                capacity.add_metric([gpu], memory.total)
                busy.add_metric([gpu], self._nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100)
        return used, capacity, busy
