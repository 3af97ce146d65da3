"""ONNX Runtime's CUDA provider without a GPU: records what it is asked for and computes on the CPU."""

import queue
import threading
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from prelabel import engine_cuda


@dataclass
class DeviceValue:
    """An `OrtValue` on the GPU: its content is reached by copies only."""

    content: NDArray[Any]
    device: int = 0

    def update_inplace(self, array: NDArray[Any]) -> None:
        assert (array.shape, array.dtype) == (self.content.shape, self.content.dtype)
        self.content[:] = array

    def numpy(self) -> NDArray[Any]:
        return self.content.copy()


@dataclass
class Binding:
    inputs: dict[str, DeviceValue] = field(default_factory=dict)
    outputs: dict[str, DeviceValue] = field(default_factory=dict)

    def bind_ortvalue_input(self, name: str, value: DeviceValue) -> None:
        self.inputs[name] = value

    def bind_ortvalue_output(self, name: str, value: DeviceValue) -> None:
        self.outputs[name] = value


@dataclass
class Gpu:
    """What the code asked for."""

    sessions: list["Session"] = field(default_factory=list)
    page_locked_bytes: list[int] = field(default_factory=list)
    values: list[tuple[tuple[int, ...], Any, str, int]] = field(default_factory=list)
    """Shape, dtype, device and device number of every allocation."""
    count: int = 1
    """GPUs of the machine."""
    refuses: bool = False
    """cudaHostRegister fails."""
    shift: float = 0.0
    """Added to every answer."""
    entered: "queue.SimpleQueue[Session]" = field(default_factory=queue.SimpleQueue)
    """The session of each run that has begun."""
    gate: threading.Event = field(default_factory=threading.Event)
    """Cleared: runs wait."""

    def __post_init__(self) -> None:
        self.gate.set()

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        real = onnxruntime.InferenceSession

        def session(model: bytes, options: Any, providers: list[Any]) -> Any:
            if providers == ["CPUExecutionProvider"]:
                return real(model, options, providers=providers)
            self.sessions.append(Session(real(model, providers=["CPUExecutionProvider"]), dict(providers), self))
            return self.sessions[-1]

        def value(shape: Any, dtype: Any, device: str, number: int) -> DeviceValue:
            self.values.append((tuple(shape), dtype, device, number))
            return DeviceValue(np.zeros(shape, dtype), number)

        monkeypatch.setattr(
            onnxruntime, "get_available_providers", lambda: [engine_cuda.TENSORRT, engine_cuda.PROVIDER]
        )
        monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None, raising=False)
        monkeypatch.setattr(onnxruntime, "cuda_version", "13.0", raising=False)
        monkeypatch.setattr(onnxruntime, "InferenceSession", session)
        monkeypatch.setattr(onnxruntime.OrtValue, "ortvalue_from_shape_and_type", value)
        monkeypatch.setattr(engine_cuda.ctypes, "CDLL", self._library)

    def _library(self, name: str) -> "Gpu":
        assert name == "libcudart.so.13"
        return self

    def cudaGetDeviceCount(self, count: Any) -> int:  # noqa: N802
        count._obj.value = self.count
        return 0

    def cudaHostRegister(self, address: Any, size: Any, flags: Any) -> int:  # noqa: N802
        assert flags.value == 1, "not page-locked for every GPU"
        self.page_locked_bytes.append(size.value)
        return 2 if self.refuses else 0

    def cudaHostUnregister(self, address: Any) -> int:  # noqa: N802
        self.page_locked_bytes.pop()
        return 0


class Session:
    """Runs on the CPU what is bound; two runs at once would be two on one CUDA stream and its buffers."""

    def __init__(self, real: Any, providers: dict[str, dict[str, str]], gpu: Gpu) -> None:
        self._real, self.providers, self._gpu = real, providers, gpu
        self.runs: list[tuple[int, str | None]] = []
        """Batch size and number of the recorded graph of each run."""
        self.bound: list[DeviceValue] = []
        """Every value that a run read or wrote."""
        self._running = threading.Lock()

    def get_providers(self) -> list[str]:
        return [*self.providers, "CPUExecutionProvider"]

    def io_binding(self) -> Binding:
        return Binding()

    def run_with_iobinding(self, binding: Binding, options: Any) -> None:
        assert self._running.acquire(blocking=False), "two threads use one session"
        self._gpu.entered.put(self)
        assert self._gpu.gate.wait(30), "the test never opened the gate"
        try:
            ((name, images),) = binding.inputs.items()
            self.bound += [images, *binding.outputs.values()]
            answers = self._real.run(list(binding.outputs), {name: images.content})
            for value, answer in zip(binding.outputs.values(), answers, strict=True):
                assert value.content.shape == answer.shape
                value.content[:] = answer + np.float32(self._gpu.shift)
            self.runs.append((len(images.content), _graph_of(options)))
        finally:
            self._running.release()


def _graph_of(options: Any) -> str | None:
    try:
        return str(options.get_run_config_entry("gpu_graph_id"))
    except RuntimeError:
        return None
