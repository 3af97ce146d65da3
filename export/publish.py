"""From a training run to a bundle directory: whole or not at all."""

import logging
import secrets
import shutil
from pathlib import Path
from typing import Any

import onnx

from export.config import Options
from export.convert import INPUT_NAME, OPSET, OUTPUT_NAMES, to_onnx
from export.parity import check_parity
from export.variants import Variants, make_variants
from prelabel.bundle import BUNDLE_FILE, MODEL_FILE, Bundle, Parity, load_bundle
from prelabel.errors import InputError
from prelabel.files import fsync_directory, sha256_file, write_bytes_atomically, write_text_atomically
from prelabel.images import ImageSpec
from training.augment import fitted
from training.checkpoint import list_checkpoints, load_classifier, read_meta
from training.models import build_discriminator, fold_weight_norm
from training.recipe import Recipe
from training.splits import find_splits

logger = logging.getLogger(__name__)


def export_run(options: Options) -> tuple[Path, Bundle]:
    """Exports the newest checkpoint of a run; returns the bundle's directory and content.

    Raises:
        InputError: There is no run, it has no checkpoint, or it is not finished.
        ParityError: The graph and the Keras model disagree.
    """
    checkpoints = list_checkpoints(options.run / "checkpoints")
    if not checkpoints:
        raise InputError(f"--run {options.run} holds no training run with a checkpoint: make one with `make train`")
    meta = read_meta(checkpoints[-1])
    try:
        recipe = fitted(Recipe(**meta["options"]["recipe"]), meta["augment"])
    except TypeError as error:
        raise InputError(f"--run {options.run} is of another version of prelabel: train it again ({error})") from error
    if meta["step"] < meta["total_steps"] and not options.unfinished:
        raise InputError(
            f"--run {options.run} has reached step {meta['step']} of {meta['total_steps']}: train on with "
            f"`python -m training resume {options.run}`, or export it as it is with --unfinished"
        )
    spec = ImageSpec(**meta["input"])
    discriminator = build_discriminator(spec, len(meta["classes"]), recipe, seed=0)
    load_classifier(checkpoints[-1], discriminator)
    discriminator = fold_weight_norm(discriminator, spec, len(meta["classes"]), recipe)
    model = to_onnx(discriminator)
    data = _data(options, meta)
    parity = check_parity(discriminator, model, data, spec)
    variants = Variants((), {})
    if options.precisions:
        variants = make_variants(discriminator, model, data, spec, tuple(meta["classes"]))
    output = options.output or options.run / "bundle"
    return output, publish(output, model, parity, variants, meta, spec)


def _data(options: Options, meta: dict[str, Any]) -> Path:
    """Returns where real images for the checks are."""
    data = options.data or Path(meta["data"])
    try:
        find_splits(data)
    except InputError as error:
        raise InputError(f"{error}; real images for the check are wanted: say with --data where some are") from error
    return data


def publish(
    output: Path, model: onnx.ModelProto, parity: Parity, variants: Variants, meta: dict[str, Any], spec: ImageSpec
) -> Bundle:
    """Writes a bundle beside its place, verifies it as a server would, and moves it there.

    Raises:
        InputError: Something that is no bundle lies at the place.
    """
    if output.exists() and not (output / BUNDLE_FILE).exists():
        raise InputError(f"--output {output} exists and is no bundle: choose another folder")
    output = output.resolve()  # what a link leads to is replaced, not the link
    output.parent.mkdir(parents=True, exist_ok=True)
    # At random: in containers a process that was killed and left its folder mostly had the number that this one has.
    number = secrets.token_hex(8)
    fresh, old = (output.with_name(f".{output.name}.{number}.{suffix}") for suffix in ("new", "old"))
    fresh.mkdir()
    try:
        files = {MODEL_FILE: model.SerializeToString(), **variants.files}
        for name, content in files.items():
            write_bytes_atomically(fresh / name, content)
        bundle = Bundle(
            name=meta["name"],
            classes=tuple(meta["classes"]),
            input=spec,
            opset=OPSET,
            parity=parity,
            training={
                key: value for key, value in meta.items() if key not in ("sums", "classes", "input", "name", "data")
            },
            files={name: sha256_file(fresh / name) for name in files},
            input_name=INPUT_NAME,
            probabilities_name=OUTPUT_NAMES[0],
            realness_name=OUTPUT_NAMES[1],
            precisions=variants.figures,
        )
        write_text_atomically(fresh / BUNDLE_FILE, bundle.to_json())
        load_bundle(fresh)
        try:
            if output.exists():
                output.rename(old)
            fresh.rename(output)
        finally:
            if old.exists() and not output.exists():  # interrupted in between
                old.rename(output)
        fsync_directory(output.parent)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
    return bundle
