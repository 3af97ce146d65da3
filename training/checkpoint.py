"""Checkpoints: one .npz with every variable and, as JSON, the run that it belongs to. No pickle, written atomically."""

import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from prelabel.errors import TrainingError
from prelabel.files import write_atomically
from training.state import State

KEEP = 2
"""Newest checkpoints that are kept: the one before the last is there should the disk lose the last."""
_NAME = re.compile(r"^step-(\d{8})\.npz$")


def save_checkpoint(directory: Path, state: State, meta: dict[str, Any], step: int) -> Path:
    """Writes the state after `step` steps and removes all but the newest checkpoints."""
    directory.mkdir(parents=True, exist_ok=True)
    arrays = {f"{owner}/{i:04d}": v.numpy() for owner, vs in state.variables().items() for i, v in enumerate(vs)}
    text = json.dumps({**meta, "step": step}, sort_keys=True)
    path = directory / f"step-{step:08d}.npz"
    write_atomically(path, lambda file: np.savez(file, allow_pickle=False, meta=np.array(text), **arrays))
    for old in list_checkpoints(directory)[:-KEEP]:
        old.unlink(missing_ok=True)
    return path


def list_checkpoints(directory: Path) -> list[Path]:
    """Returns the checkpoints of a run, oldest first."""
    return sorted(path for path in directory.glob("step-*.npz") if _NAME.match(path.name))


def read_meta(path: Path) -> dict[str, Any]:
    """Returns what `save_checkpoint` was given, with `step`.

    Raises:
        TrainingError: The file is no checkpoint.
    """
    meta: dict[str, Any] = json.loads(str(_read(path)["meta"]))
    return meta


def load_checkpoint(path: Path, state: State) -> int:
    """Sets every variable from a checkpoint and returns the number of steps that it stands for.

    Raises:
        TrainingError: The file is no checkpoint, or one of other networks.
    """
    content = _read(path)
    names = {f"{owner}/{i:04d}": v for owner, vs in state.variables().items() for i, v in enumerate(vs)}
    if content.keys() - {"meta"} != names.keys():
        raise TrainingError(f"checkpoint {path} is of other networks: it has {len(content) - 1} variables")
    for name, variable in names.items():
        if content[name].shape != tuple(variable.shape):
            raise TrainingError(
                f"checkpoint {path} is of other networks: {name} is {content[name].shape}, not {variable.shape}"
            )
    for name, variable in names.items():
        variable.assign(content[name])
    return int(json.loads(str(content["meta"]))["step"])


def load_classifier(path: Path, discriminator: keras.Model) -> None:
    """Sets D's variables to those of the checkpoint's teacher: the weights that are evaluated and exported.

    Raises:
        TrainingError: The file is no checkpoint, or one of another D.
    """
    content = _read(path)
    names = sorted(name for name in content if name.startswith("teacher/"))
    shapes = [content[name].shape for name in names]
    if shapes != [tuple(variable.shape) for variable in discriminator.variables]:
        raise TrainingError(
            f"checkpoint {path} is of another discriminator, as another version of prelabel made it: train it again"
        )
    for name, variable in zip(names, discriminator.variables, strict=True):
        variable.assign(content[name])


def _read(path: Path) -> dict[str, NDArray[Any]]:
    try:
        # All of it: a member is checked when it is read.
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as content:
            arrays = {name: content[name] for name in ("meta", *content.files)}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise TrainingError(
            f"{path} is not a readable checkpoint ({error}): delete it, or start the run over with --overwrite"
        ) from None
    return arrays
