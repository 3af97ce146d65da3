"""What made the predictions: the model, as its bundle says it, and the run, as its files say it."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from prelabel.bundle import Bundle, load_bundle
from prelabel.errors import InputError
from prelabel.output import RUN_FILE, SUMMARY_FILE
from prelabel.report.markup import details, fields, paragraph, section, table
from prelabel.report.rows import Rows
from prelabel.report.text import name, number, percent, text, value


def bundle_of(path: Path, rows: Rows) -> Bundle:
    """Reads and verifies the bundle of the model that made the predictions.

    Raises:
        InputError: It is damaged, or of another model.
    """
    bundle = load_bundle(path)
    if bundle.model_id != rows.model_id:
        raise InputError(
            f"--bundle {path} is model {bundle.model_id}, but the predictions are of {rows.model_id}: give its bundle"
        )
    return bundle


def model_card(rows: Rows, bundle: Bundle | None) -> str:
    """Returns the model as a part of the page."""
    if bundle is None:
        known = fields({"model_id": rows.model_id, "classes": rows.classes})
        return section("model", "The model", known, paragraph("--bundle says more: its training, checks and files."))
    training = dict(bundle.training)
    data_hash = training.pop("manifest_hash", None)
    height, width, channels = bundle.input.shape
    head = {
        "name": bundle.name,
        "model_id": bundle.model_id,
        "input": f"uint8 {height} x {width} x {channels}, {bundle.input.resize_rule}",
        "ONNX opset": bundle.opset,
        "training data (hash)": data_hash,
        "training commit": training.pop("commit", None),
        "temperature": "not fitted" if bundle.calibration is None else bundle.calibration.get("temperature"),
    }
    return section(
        "model",
        "The model",
        fields(head),
        _classes(bundle, training.pop("label_counts", None)),
        details("Parity: Keras against ONNX Runtime", fields(dataclasses.asdict(bundle.parity))),
        details("Reduced precisions", _precisions(bundle)),
        *([] if bundle.calibration is None else [details("Calibration", fields(bundle.calibration))]),
        details("Training", fields(training) if training else paragraph("The bundle does not say.")),
        details("Files, by SHA-256", fields(bundle.files)),
    )


def _classes(bundle: Bundle, label_counts: Any) -> str:
    header = ["class", "index"]
    lines = [[name(label), number(k)] for k, label in enumerate(bundle.classes)]
    if isinstance(label_counts, list) and len(label_counts) == len(lines):
        header.append("labels for training")
        lines = [[*line, value(count)] for line, count in zip(lines, label_counts, strict=True)]
    return details("Classes", table("Classes of the model", header, lines))


def _precisions(bundle: Bundle) -> str:
    if not bundle.precisions:
        return paragraph("None was tried: the model runs in float32.")
    lines = [
        [
            f"{text(one.precision)}, {text(one.runtime)}",
            "allowed" if one.passed else "refused",
            name(one.reason),
            name(one.recipe),
            number(one.images),
            percent(one.agreement, 3),
            value(one.p999_difference),
        ]
        for one in bundle.precisions
    ]
    header = ["precision", "verdict", "reason", "recipe", "images", "same class", "p99.9 difference"]
    return table("Reduced precisions against the Keras model", header, lines)


def run_card(rows: Rows, run: Path | None) -> str:
    """Returns what the run was as a part of the page.

    Args:
        rows: The predictions.
        run: The output directory of `prelabel run` where that of the predictions has lanes and no files about it.

    Raises:
        InputError: A file is damaged, or of another run, or there is none in `run`.
    """
    parts = [fields({"model_id": rows.model_id, "input (hash)": rows.manifest_hash, "version": rows.version})]
    for file, left_out in ((RUN_FILE, "classes"), (SUMMARY_FILE, "labels")):
        about = _read((run or rows.directory) / file, rows)
        if about is not None:
            parts.append(f"<h3>{text(file)}</h3>{fields({key: one for key, one in about.items() if key != left_out})}")
    if len(parts) == 1 and run is not None:
        raise InputError(f"--run {run} holds no {RUN_FILE}: give the output directory of `prelabel run`")
    if len(parts) == 1:
        parts.append(paragraph(f"{RUN_FILE} and {SUMMARY_FILE} say more: give --run, the output of `prelabel run`."))
    return section("run", "The run", *parts)


def _read(path: Path, rows: Rows) -> dict[str, Any] | None:
    try:
        about: dict[str, Any] = json.loads(path.read_bytes())
        other = (about["model_id"], about["manifest_hash"]) != (rows.model_id, rows.manifest_hash)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged ({type(error).__name__}: {error})") from None
    if other:
        raise InputError(f"{path} is of another run than the predictions: give --run the directory that they come from")
    return about
