"""The run's folder: whose it is, and what config.json and every checkpoint say about it."""

import contextlib
import dataclasses
import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from prelabel.errors import InputError, TrainingError
from prelabel.files import write_text_atomically
from prelabel.storage import LOCK_FILE
from prelabel.storage_local import LocalStorage
from training.augment import Kind
from training.config import Options
from training.dataset import Dataset
from training.provenance import code_version
from training.recipe import Recipe

logger = logging.getLogger(__name__)

WRITTEN = (
    "training.json", "metrics.csv", "curves.png", "samples.png", "samples", "checkpoints", "tensorboard", "skill.json",
    "config.json",
)  # fmt: skip
"""What training writes and `--overwrite` removes; config.json last: a kill in between leaves the folder ours."""

DATA_FIELDS = ("manifest_hash", "labels_hash", "classes", "input", "label_counts")
"""Fields of config.json that change with the data."""
RULED_FIELDS = ("augment", "pile_ramp", "labelled_batch")
"""Fields that a rule of this version of prelabel chose from the data: an unfinished run keeps what it began with."""

SAME_RUN = ("options", "manifest_hash", "labels_hash")
"""Fields that tell whether a checkpoint is of the run in config.json."""


@contextlib.contextmanager
def hold_folder(options: Options) -> Iterator[None]:
    """Makes the run's folder and holds it, after its options were checked against those of the run that it holds.

    Raises:
        InputError: The folder holds a run with other options, or something else; or another process trains into it.
    """
    _check_folder(options)  # before the lock: nothing is written into what is somebody else's
    with LocalStorage(options.output).lock():
        _check_folder(options)
        yield


def _check_folder(options: Options) -> None:
    directory = options.output
    known = _read_config(directory)
    if known is None:
        names = sorted(path.name for path in directory.iterdir()) if directory.exists() else []
        # What a process that was killed leaves of a file that it wrote is nobody's.
        others = [name for name in names if name != LOCK_FILE and not (name[0] == "." and name.endswith(".tmp"))]
        if others:
            raise InputError(f"--output {directory} holds other files ({', '.join(others[:3])}): choose another folder")
        return
    if options.overwrite:
        return
    there, wanted = known["options"], options.identity()
    recipes = there.pop("recipe"), wanted.pop("recipe")
    if there == wanted:  # a new version of prelabel may have changed the preset
        there, wanted = recipes
    for name in wanted:
        if there.get(name) != wanted[name]:
            raise _other_run(directory, name, there.get(name), wanted[name])


def options_of(run: Path, data: Path | None) -> Options:
    """Returns the options of the run in a folder, to go on with it; `data` where its data has moved.

    Raises:
        InputError: The folder holds no run.
    """
    known = _read_config(run)
    if known is None:
        raise InputError(f"{run} holds no training run: start one with `python -m training --output {run} --data ...`")
    names = {field.name for field in dataclasses.fields(Options)}
    chosen = {name: value for name, value in known["options"].items() if name in names}
    chosen["change"] = tuple(chosen.get("change", ()))
    if "checkpoint_every" in known:
        chosen["checkpoint_every"] = known["checkpoint_every"]
    return Options(
        data=data or Path(known["data"]), output=run, **{k: v for k, v in chosen.items() if k not in ("data", "output")}
    )


def open_run(options: Options, meta: dict[str, Any]) -> dict[str, Any] | None:
    """Claims the folder for the run that `meta` describes; returns the summary if the same run is finished there.

    Raises:
        InputError: The folder holds a run on other data.
    """
    directory = options.output
    known = _read_config(directory)
    if known is not None and options.overwrite:
        logger.warning("--overwrite: the run in %s is removed, and training starts over", directory)
        for name in WRITTEN:
            path = directory / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        known = None
    if known is not None:
        for name in DATA_FIELDS:
            if known.get(name, meta[name]) != meta[name]:  # config.json of long ago lacks some
                raise _other_run(directory, f"data whose {name} is", known[name], meta[name])
        if (summary := finished_run(directory)) is not None:
            return summary
        for name in RULED_FIELDS:
            if known.get(name, meta[name]) != meta[name]:
                raise _other_run(directory, name, known[name], meta[name])
    write_text_atomically(directory / "config.json", json.dumps(meta, indent=2) + "\n")
    return None


def check_same_run(checkpoint: Path, meta: dict[str, Any], run: dict[str, Any]) -> None:
    """Raises `TrainingError` unless a checkpoint's `meta` is of the run that config.json describes."""
    for name in SAME_RUN:
        if meta.get(name, run[name]) != run[name]:
            raise TrainingError(
                f"checkpoint {checkpoint} is of another run: its {name} are not those in config.json; delete it, or "
                "start over with --overwrite"
            )


def finished_run(directory: Path) -> dict[str, Any] | None:
    """Returns the summary of the run in a folder, or None where it is not finished."""
    path = directory / "training.json"
    if not path.exists():
        return None
    summary: dict[str, Any] = json.loads(path.read_text())
    return summary


def describe(options: Options, dataset: Dataset, kind: Kind, recipe: Recipe) -> dict[str, Any]:
    """Returns what config.json and every checkpoint say about the run; the recipe as it is fitted to the data."""
    training = dataset.training
    return {
        "name": options.output.name,
        "data": str(options.data),
        "manifest_hash": dataset.manifest_hash,
        "labels_hash": dataset.labels_hash,
        "options": options.identity(),
        "checkpoint_every": options.checkpoint_every,
        "classes": list(training.classes),
        "input": dataclasses.asdict(training.spec),
        "augment": kind,
        "pile_ramp": recipe.pile_ramp,
        "labelled_batch": recipe.labelled_batch,
        "label_counts": np.bincount(training.labels, minlength=len(training.classes)).tolist(),
        "commit": code_version(),
        "tensorflow": tf.__version__,
    }


def _read_config(directory: Path) -> dict[str, Any] | None:
    path = directory / "config.json"
    if not path.exists():
        return None
    try:
        content: dict[str, Any] = json.loads(path.read_text())
        if {"options", "classes", "input", "commit"} <= set(content) and "recipe" in content["options"]:
            return content
    except (ValueError, TypeError):
        pass
    raise InputError(f"--output {directory} holds a config.json that is not of a training run: choose another folder")


def _other_run(directory: Path, what: str, there: object, wanted: object) -> InputError:
    return InputError(
        f"--output {directory} holds a run with {what} {there}, not {wanted}: choose another folder, or start over "
        "with --overwrite"
    )
