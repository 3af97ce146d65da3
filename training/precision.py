"""Number formats of the networks: float32, or bfloat16 arithmetic on float32 weights."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import keras
import tensorflow as tf

Precision = Literal["auto", "float32", "bfloat16"]


def choose_precision(wanted: Precision) -> Literal["float32", "bfloat16"]:
    """Returns `bfloat16` where `auto` finds GPUs that all compute in it (compute capability 8 or higher), else float32.

    float16 is not offered: its range would need loss scaling, and GPUs without bfloat16 gain little at these sizes.
    """
    if wanted != "auto":
        return wanted
    details = [tf.config.experimental.get_device_details(gpu) for gpu in tf.config.list_physical_devices("GPU")]
    capable = details and all(detail.get("compute_capability", (0, 0)) >= (8, 0) for detail in details)
    return "bfloat16" if capable else "float32"


@contextmanager
def precision(chosen: Literal["float32", "bfloat16"]) -> Iterator[None]:
    """Layers made inside compute in this format; weights, statistics, logits and features stay float32."""
    before = keras.mixed_precision.dtype_policy()
    keras.mixed_precision.set_dtype_policy("mixed_bfloat16" if chosen == "bfloat16" else "float32")
    try:
        yield
    finally:
        keras.mixed_precision.set_dtype_policy(before)
