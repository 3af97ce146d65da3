"""Runs one training, in a process of its own, on as many virtual CPU devices as the first argument says.

TensorFlow's devices are fixed at its start, so a test cannot make them in its own process.
"""

import json
import os
import sys
from pathlib import Path

import tensorflow as tf

from training import loop, probe
from training.config import Options
from training.train import train
from training.trust import Skill


def main() -> None:
    devices, strategy, preset, augment, data, output = sys.argv[1:7]
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * int(devices))
    changes = ("labelled_batch=6", "unlabelled_batch=8", "generated_batch=4")
    changes += ("adversarial_batch=4",) if preset == "default" else ()
    # The few steps of a test teach too little for the pile to have a weight.
    probe.held_out_skill = lambda *_: Skill(0.22, 0.02)
    loop.ROW_EVERY = 1
    summary = train(
        Options(
            Path(data), Path(output), labels=6, steps=5, preset=preset, strategy=strategy, augment=augment,  # type: ignore[arg-type]
            evaluate_every=5, checkpoint_every=5, progress="none", change=(*changes, *sys.argv[7:]),
            overwrite="OVERWRITE" in os.environ,
        )
    )  # fmt: skip
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
